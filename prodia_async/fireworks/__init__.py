"""
The second API: pictures of FLUX.1 [schnell] FP8 and its kin on Fireworks, over the same engine.

::

    async with AsyncFireworks() as client:           # the key is in FIREWORKS_API_KEY
        response = await client.text_to_image("a strawberry", aspect_ratio="16:9")
        await response.image.save("strawberry.png")

The errors, formats and policies are those of `prodia_async`.
"""

from ._answers import ContentFilteredError, Image, ImageOutcome, ImageResponse
from ._client import AsyncFireworks
from ._orders import Generate, Kontext, TextToImage
from ._prices import Estimate, estimate

__all__ = [
    "AsyncFireworks",
    "ContentFilteredError",
    "Estimate",
    "Generate",
    "Image",
    "ImageOutcome",
    "ImageResponse",
    "Kontext",
    "TextToImage",
    "estimate",
]

# Tracebacks and pickles name the door, not the room behind it.
for _value in [globals()[_name] for _name in __all__]:
    _value.__module__ = __name__
