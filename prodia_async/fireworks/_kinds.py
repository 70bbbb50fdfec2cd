"""What can be ordered of the Fireworks API, by name, and which of it takes a picture."""

from __future__ import annotations

from typing import Any

from ._edits import CannyEdgeDetection, ControlNet, ImageToImage, QRCode
from ._orders import Generate, Kontext, TextToImage

KINDS: dict[str, type[Any]] = {
    "text_to_image": TextToImage,
    "generate": Generate,
    "kontext": Kontext,
    "image_to_image": ImageToImage,
    "control_net": ControlNet,
    "canny_edge_detection": CannyEdgeDetection,
    "qr_code": QRCode,
}
"""By the names that the client's methods have, and a row's `type` in a file and in a record."""

PICTURES: dict[type[Any], str] = {
    Kontext: "input_image",
    ImageToImage: "init_image",
    ControlNet: "control_image",
    CannyEdgeDetection: "image",
}
"""The field that holds the picture an order starts from."""
