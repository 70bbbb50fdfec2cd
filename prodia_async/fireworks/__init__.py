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
from ._edits import CannyEdgeDetection, ControlNet, ImageToImage, QRCode
from ._orders import Generate, Kontext, TextToImage
from ._prices import Estimate, estimate
from ._running import OrderLike
from ._webhooks import verify_webhook

__all__ = [
    "AsyncFireworks",
    "CannyEdgeDetection",
    "ContentFilteredError",
    "ControlNet",
    "Estimate",
    "Generate",
    "Image",
    "ImageOutcome",
    "ImageResponse",
    "ImageToImage",
    "Kontext",
    "OrderLike",
    "QRCode",
    "TextToImage",
    "estimate",
    "verify_webhook",
]

# Tracebacks and pickles name the door, not the module behind it.
for _value in [globals()[_name] for _name in __all__]:
    if callable(_value):  # but for unions
        _value.__module__ = __name__
