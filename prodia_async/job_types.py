"""
Jobs of well-known types, with their settings as arguments, so that an editor completes them.

::

    from prodia_async import AsyncProdia, job_types

    job = job_types.flux_fast_schnell_txt2img("a bowl of fruit", steps=4, seed=42)
    response = await client.job(job)

Each function returns a plain `Job` and sends nothing. Only what is given goes
into its ``config``, so the service's own defaults hold for the rest. Nothing
is checked here: a type checker sees wrong names and kinds, and the client's
``validate="known"`` holds a job against what is documented.

A function is named after its type, without ``inference.``; without a version
it stands for the newest version that is known. Any other type is a
``Job("inference...", {...})`` by hand, which is all that these functions make.

After each setting stands how sure its description is: A documented by Prodia,
B recorded from or tested against the live service, C assumed by other
clients, I our inference. Settings that are missing here go into ``extra``.
"""

# Written by tests/write_job_types.py from the catalogue; change that, not this.

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ._models import Job

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


__all__ = [
    "StylePreset",
    "birefnet_segment",
    "flux_2_dev_img2img",
    "flux_2_dev_txt2img",
    "flux_2_flex_img2img",
    "flux_2_flex_txt2img",
    "flux_2_klein_4b_img2img",
    "flux_2_klein_4b_txt2img",
    "flux_2_klein_9b_img2img",
    "flux_2_klein_9b_txt2img",
    "flux_2_max_img2img",
    "flux_2_max_txt2img",
    "flux_2_pro_img2img",
    "flux_2_pro_txt2img",
    "flux_fast_schnell_txt2img",
    "flux_fast_schnell_txt2img_v1",
    "minimax_h3_fast_img2vid",
    "minimax_h3_fast_ref2vid",
    "minimax_h3_fast_txt2vid",
    "nano_banana_img2img",
    "nano_banana_txt2img",
    "recraft_img2img",
    "remove_background",
    "sam3_segment",
    "upscale",
    "veo_fast_img2vid",
    "veo_fast_txt2vid",
    "veo_img2vid",
    "veo_txt2vid",
    "wan2_7_img2vid",
    "wan2_7_txt2vid",
]

StylePreset: TypeAlias = Literal[
    "3d-model",
    "analog-film",
    "anime",
    "cinematic",
    "comic-book",
    "digital-art",
    "enhance",
    "fantasy-art",
    "isometric",
    "line-art",
    "low-poly",
    "neon-punk",
    "origami",
    "photographic",
    "pixel-art",
    "texture",
    "craft-clay",
]


def flux_fast_schnell_txt2img(
    prompt: str,
    *,
    steps: int | None = None,
    width: int | None = None,
    height: int | None = None,
    seed: int | None = None,
    style_preset: StylePreset | None = None,
    loras: Sequence[str] | None = None,
    progressive: bool | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask ``inference.flux-fast.schnell.txt2img.v2`` for a picture from a text.

    About 0.3 s (A). About $0.0025 (A). The price depends on size and steps.

    Args:
        prompt: A text. (B)
        steps: A whole number 1 to 4; default ``4``. (B)
        width: A whole number 256 to 1920; default ``1024``. (B)
        height: A whole number 256 to 1920; default ``1024``. (B)
        seed: A whole number; made by the service when absent. (B)
        style_preset: One of `StylePreset`. (B)
        loras: A list of texts, at most 3 of them; for instance "prodia/flux-lora-painting". (B)
        progressive: True or False; progressive JPEG. (B)
        extra: Further members of ``config``.

    Source: reference "Price"; option schema of @ai-sdk/prodia.
    """
    return _job(
        "inference.flux-fast.schnell.txt2img.v2",
        {
            "prompt": prompt,
            "steps": steps,
            "width": width,
            "height": height,
            "seed": seed,
            "style_preset": style_preset,
            "loras": loras,
            "progressive": progressive,
        },
        extra,
    )


def flux_fast_schnell_txt2img_v1(
    prompt: str,
    *,
    steps: int | None = None,
    resolution: Literal[
        "1024x1024", "1024x768", "1024x576", "768x1024", "640x640", "576x1024", "512x512"
    ]
    | None = None,
    seed: int | None = None,
    style_preset: StylePreset | None = None,
    progressive: bool | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask ``inference.flux-fast.schnell.txt2img.v1`` for a picture from a text.

    Args:
        prompt: A text of 3 to 4096 characters. (A)
        steps: A whole number 1 to 4; default ``4``. (A)
        resolution: One of ``"1024x1024"``, ``"1024x768"``, ``"1024x576"``, ``"768x1024"``,
            ``"640x640"``, ``"576x1024"``, ``"512x512"``; default ``"1024x1024"``. (A)
        seed: A whole number; made by the service when absent. (A)
        style_preset: One of `StylePreset`. (A)
        progressive: True or False; default ``False``; progressive JPEG; today a parameter of
            the output format. (A)
        extra: Further members of ``config``.

    Source: job-type page inference-flux-fast-schnell-txt2img-v1.
    """
    return _job(
        "inference.flux-fast.schnell.txt2img.v1",
        {
            "prompt": prompt,
            "steps": steps,
            "resolution": resolution,
            "seed": seed,
            "style_preset": style_preset,
            "progressive": progressive,
        },
        extra,
    )


def flux_2_dev_txt2img(
    prompt: str,
    *,
    width: int | None = None,
    height: int | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    style_preset: str | None = None,
    seed: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask ``inference.flux-2.dev.txt2img.v1`` for a picture from a text.

    About 3 s (A). About $0.01-0.015 (A).

    Args:
        prompt: A text of 1 to 32768 characters. (I)
        width: A whole number 512 to 1920; the page gives the range as resolution. (A)
        height: A whole number 512 to 1920; the page gives the range as resolution. (A)
        steps: A whole number 1 to 50. (A)
        guidance: A number 1 to 10. (A)
        style_preset: One of `StylePreset`. (I)
        seed: A whole number; made by the service when absent. (I)
        extra: Further members of ``config``.

    Source: model page flux-2.
    """
    return _job(
        "inference.flux-2.dev.txt2img.v1",
        {
            "prompt": prompt,
            "width": width,
            "height": height,
            "steps": steps,
            "guidance": guidance,
            "style_preset": style_preset,
            "seed": seed,
        },
        extra,
    )


def flux_2_dev_img2img(
    prompt: str,
    *,
    images: Sequence[str] | None = None,
    width: int | None = None,
    height: int | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    style_preset: str | None = None,
    seed: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask ``inference.flux-2.dev.img2img.v1`` for a picture from pictures and a text.

    Takes 1 to 8 inputs (A). About 3 s (A). About $0.01-0.015 (A).

    Args:
        prompt: A text of 1 to 32768 characters. (I)
        images: A list of names of inputs, 1 to 8 of them; without it, the inputs in the order
            they are sent. (A)
        width: A whole number 512 to 1920; the page gives the range as resolution. (A)
        height: A whole number 512 to 1920; the page gives the range as resolution. (A)
        steps: A whole number 1 to 50. (A)
        guidance: A number 1 to 10. (A)
        style_preset: One of `StylePreset`. (I)
        seed: A whole number; made by the service when absent. (I)
        extra: Further members of ``config``.

    Source: guide "Combining Multiple Images"; model page flux-2.
    """
    return _job(
        "inference.flux-2.dev.img2img.v1",
        {
            "prompt": prompt,
            "images": images,
            "width": width,
            "height": height,
            "steps": steps,
            "guidance": guidance,
            "style_preset": style_preset,
            "seed": seed,
        },
        extra,
    )


def flux_2_pro_txt2img(
    prompt: str,
    *,
    width: int | None = None,
    height: int | None = None,
    seed: int | None = None,
    safety_tolerance: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask ``inference.flux-2.pro.txt2img.v1`` for a picture from a text.

    About 12 s (A). About $0.03 (A).

    Args:
        prompt: A text of 1 to 32768 characters. (I)
        width: A whole number 64 to 4096, a multiple of 16. (A)
        height: A whole number 64 to 4096, a multiple of 16. (A)
        seed: A whole number; made by the service when absent. (I)
        safety_tolerance: A whole number 0 to 5; default ``2``. (I)
        extra: Further members of ``config``.

    Source: model page flux-2.
    """
    return _job(
        "inference.flux-2.pro.txt2img.v1",
        {
            "prompt": prompt,
            "width": width,
            "height": height,
            "seed": seed,
            "safety_tolerance": safety_tolerance,
        },
        extra,
    )


def flux_2_pro_img2img(
    prompt: str,
    *,
    images: Sequence[str] | None = None,
    width: int | None = None,
    height: int | None = None,
    seed: int | None = None,
    safety_tolerance: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask ``inference.flux-2.pro.img2img.v1`` for a picture from pictures and a text.

    Takes 1 to 8 inputs: 9 megapixels together at most (A). About 12 s (A). About $0.03 (A).

    Args:
        prompt: A text of 1 to 32768 characters. (A)
        images: A list of names of inputs, 1 to 8 of them; without it, the inputs in the order
            they are sent; 9 megapixels together at most. (A)
        width: A whole number 64 to 4096, a multiple of 16; by default that of the input. (A)
        height: A whole number 64 to 4096, a multiple of 16; by default that of the input. (A)
        seed: A whole number; made by the service when absent. (A)
        safety_tolerance: A whole number 0 to 5; default ``2``. (A)
        extra: Further members of ``config``.

    Source: job-type page inference-flux-2-pro-img2img-v1; guide "Combining Multiple Images";
    model page flux-2.
    """
    return _job(
        "inference.flux-2.pro.img2img.v1",
        {
            "prompt": prompt,
            "images": images,
            "width": width,
            "height": height,
            "seed": seed,
            "safety_tolerance": safety_tolerance,
        },
        extra,
    )


def flux_2_flex_txt2img(
    prompt: str,
    *,
    width: int | None = None,
    height: int | None = None,
    seed: int | None = None,
    safety_tolerance: int | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask ``inference.flux-2.flex.txt2img.v1`` for a picture from a text.

    About 22 s (A). About $0.06 (A).

    Args:
        prompt: A text of 1 to 32768 characters. (I)
        width: A whole number 64 to 4096. (A)
        height: A whole number 64 to 4096. (A)
        seed: A whole number; made by the service when absent. (I)
        safety_tolerance: A whole number 0 to 5; default ``2``. (I)
        steps: A whole number 1 to 50; default ``50``. (I)
        guidance: A number 1.5 to 10; default ``4.5``. (I)
        extra: Further members of ``config``.

    Source: model page flux-2.
    """
    return _job(
        "inference.flux-2.flex.txt2img.v1",
        {
            "prompt": prompt,
            "width": width,
            "height": height,
            "seed": seed,
            "safety_tolerance": safety_tolerance,
            "steps": steps,
            "guidance": guidance,
        },
        extra,
    )


def flux_2_flex_img2img(
    prompt: str,
    *,
    images: Sequence[str] | None = None,
    width: int | None = None,
    height: int | None = None,
    seed: int | None = None,
    safety_tolerance: int | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    aspect_ratio: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask ``inference.flux-2.flex.img2img.v1`` for a picture from pictures and a text.

    Takes 1 to 10 inputs: 8 in its schema, 10 in the guide and on the model page; the larger
    holds here (A). About 22 s (A). About $0.06 (A).

    Args:
        prompt: A text of 1 to 32768 characters. (A)
        images: A list of names of inputs, 1 to 10 of them; without it, the inputs in the order
            they are sent; 8 in its schema, 10 in the guide and on the model page; the larger
            holds here. (A)
        width: A whole number 64 to 4096, a multiple of 16; by default that of the input. (A)
        height: A whole number 64 to 4096, a multiple of 16; by default that of the input. (A)
        seed: A whole number; made by the service when absent. (A)
        safety_tolerance: A whole number 0 to 5; default ``2``. (A)
        steps: A whole number 1 to 50; default ``50``. (A)
        guidance: A number 1.5 to 10; default ``4.5``. (A)
        aspect_ratio: A text; the guide sends "1:1"; not in the schema. (A)
        extra: Further members of ``config``.

    Source: job-type page inference-flux-2-flex-img2img-v1; guide "Combining Multiple Images";
    model page flux-2.
    """
    return _job(
        "inference.flux-2.flex.img2img.v1",
        {
            "prompt": prompt,
            "images": images,
            "width": width,
            "height": height,
            "seed": seed,
            "safety_tolerance": safety_tolerance,
            "steps": steps,
            "guidance": guidance,
            "aspect_ratio": aspect_ratio,
        },
        extra,
    )


def flux_2_max_txt2img(
    prompt: str,
    *,
    width: int | None = None,
    height: int | None = None,
    seed: int | None = None,
    safety_tolerance: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask ``inference.flux-2.max.txt2img.v1`` for a picture from a text.

    About 15 s (A). About $0.04 (A).

    Args:
        prompt: A text of 1 to 32768 characters. (I)
        width: A whole number 256 to 2048; the page gives the range as resolution. (A)
        height: A whole number 256 to 2048; the page gives the range as resolution. (A)
        seed: A whole number; made by the service when absent. (I)
        safety_tolerance: A whole number 0 to 5; default ``2``. (I)
        extra: Further members of ``config``.

    Source: model page flux-2.
    """
    return _job(
        "inference.flux-2.max.txt2img.v1",
        {
            "prompt": prompt,
            "width": width,
            "height": height,
            "seed": seed,
            "safety_tolerance": safety_tolerance,
        },
        extra,
    )


def flux_2_max_img2img(
    prompt: str,
    *,
    images: Sequence[str] | None = None,
    width: int | None = None,
    height: int | None = None,
    seed: int | None = None,
    safety_tolerance: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask ``inference.flux-2.max.img2img.v1`` for a picture from pictures and a text.

    Takes 1 to 8 inputs (A). About 15 s (A). About $0.04 (A).

    Args:
        prompt: A text of 1 to 32768 characters. (I)
        images: A list of names of inputs, 1 to 8 of them; without it, the inputs in the order
            they are sent. (A)
        width: A whole number 256 to 2048; the page gives the range as resolution. (A)
        height: A whole number 256 to 2048; the page gives the range as resolution. (A)
        seed: A whole number; made by the service when absent. (I)
        safety_tolerance: A whole number 0 to 5; default ``2``. (I)
        extra: Further members of ``config``.

    Source: guide "Combining Multiple Images"; model page flux-2.
    """
    return _job(
        "inference.flux-2.max.img2img.v1",
        {
            "prompt": prompt,
            "images": images,
            "width": width,
            "height": height,
            "seed": seed,
            "safety_tolerance": safety_tolerance,
        },
        extra,
    )


def flux_2_klein_4b_txt2img(
    prompt: str,
    *,
    width: int | None = None,
    height: int | None = None,
    steps: int | None = None,
    seed: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask ``inference.flux-2.klein.4b.txt2img.v1`` for a picture from a text.

    About $0.0015 (C).

    Args:
        prompt: A text of 1 to 32768 characters. (I)
        width: A whole number at least 512. (C)
        height: A whole number at least 512. (C)
        steps: A whole number; Prodia itself uses 4. (A)
        seed: A whole number; made by the service when absent. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings; third-party clients; prompt of Prodia's own
    vibedesign.
    """
    return _job(
        "inference.flux-2.klein.4b.txt2img.v1",
        {"prompt": prompt, "width": width, "height": height, "steps": steps, "seed": seed},
        extra,
    )


def flux_2_klein_4b_img2img(
    prompt: str,
    *,
    images: Sequence[str] | None = None,
    width: int | None = None,
    height: int | None = None,
    steps: int | None = None,
    seed: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask ``inference.flux-2.klein.4b.img2img.v1`` for a picture from pictures and a text.

    Takes 1 or more inputs. About $0.0025 (C).

    Args:
        prompt: A text of 1 to 32768 characters. (I)
        images: A list of names of inputs; without it, the inputs in the order they are sent.
            (I)
        width: A whole number at least 512. (C)
        height: A whole number at least 512. (C)
        steps: A whole number; Prodia itself uses 4. (A)
        seed: A whole number; made by the service when absent. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings; third-party clients; prompt of Prodia's own
    vibedesign.
    """
    return _job(
        "inference.flux-2.klein.4b.img2img.v1",
        {
            "prompt": prompt,
            "images": images,
            "width": width,
            "height": height,
            "steps": steps,
            "seed": seed,
        },
        extra,
    )


def flux_2_klein_9b_txt2img(
    prompt: str,
    *,
    width: int | None = None,
    height: int | None = None,
    steps: int | None = None,
    seed: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask ``inference.flux-2.klein.9b.txt2img.v1`` for a picture from a text.

    Args:
        prompt: A text of 1 to 32768 characters. (I)
        width: A whole number at least 512. (C)
        height: A whole number at least 512. (C)
        steps: A whole number; Prodia itself uses 4. (A)
        seed: A whole number; made by the service when absent. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings; third-party clients; prompt of Prodia's own
    vibedesign.
    """
    return _job(
        "inference.flux-2.klein.9b.txt2img.v1",
        {"prompt": prompt, "width": width, "height": height, "steps": steps, "seed": seed},
        extra,
    )


def flux_2_klein_9b_img2img(
    prompt: str,
    *,
    images: Sequence[str] | None = None,
    width: int | None = None,
    height: int | None = None,
    steps: int | None = None,
    seed: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask ``inference.flux-2.klein.9b.img2img.v1`` for a picture from pictures and a text.

    Takes 1 or more inputs. About $0.005 (C).

    Args:
        prompt: A text of 1 to 32768 characters. (I)
        images: A list of names of inputs; without it, the inputs in the order they are sent.
            (I)
        width: A whole number at least 512. (C)
        height: A whole number at least 512. (C)
        steps: A whole number; Prodia itself uses 4. (A)
        seed: A whole number; made by the service when absent. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings; third-party clients; prompt of Prodia's own
    vibedesign.
    """
    return _job(
        "inference.flux-2.klein.9b.img2img.v1",
        {
            "prompt": prompt,
            "images": images,
            "width": width,
            "height": height,
            "steps": steps,
            "seed": seed,
        },
        extra,
    )


def nano_banana_txt2img(
    prompt: str,
    *,
    aspect_ratio: str | None = None,
    include_messages: bool | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask ``inference.nano-banana.txt2img.v2`` for a picture from a text.

    Args:
        prompt: A text of at most 2500 characters. (C)
        aspect_ratio: One of ``"auto"``, ``"1:1"``, ``"2:3"``, ``"3:2"``, ``"3:4"``, ``"4:3"``,
            ``"4:5"``, ``"5:4"``, ``"4:7"``, ``"7:4"``, ``"9:16"``, ``"16:9"``, ``"9:21"``,
            ``"21:9"``; default ``"auto"``; two clients have different lists; these are both
            together. (C)
        include_messages: True or False; also what the model says, as message.txt. (B)
        extra: Further members of ``config``.

    Source: names seen in clients and listings; third-party clients; option schema of
    @ai-sdk/prodia.
    """
    return _job(
        "inference.nano-banana.txt2img.v2",
        {"prompt": prompt, "aspect_ratio": aspect_ratio, "include_messages": include_messages},
        extra,
    )


def nano_banana_img2img(
    prompt: str,
    *,
    images: Sequence[str] | None = None,
    aspect_ratio: str | None = None,
    include_messages: bool | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask ``inference.nano-banana.img2img.v2`` for a picture from pictures and a text.

    Takes 1 to 3 inputs (A). About 8 s (A). About $0.039 (A). Takes no seed; clients disagree
    whether it may run asynchronously.

    Args:
        prompt: A text of at most 2500 characters. (C)
        images: A list of names of inputs, 1 to 3 of them; without it, the inputs in the order
            they are sent. (A)
        aspect_ratio: One of ``"auto"``, ``"1:1"``, ``"2:3"``, ``"3:2"``, ``"3:4"``, ``"4:3"``,
            ``"4:5"``, ``"5:4"``, ``"4:7"``, ``"7:4"``, ``"9:16"``, ``"16:9"``, ``"9:21"``,
            ``"21:9"``; default ``"auto"``; two clients have different lists; these are both
            together. (C)
        include_messages: True or False; also what the model says, as message.txt. (B)
        extra: Further members of ``config``.

    Source: guide "Combining Multiple Images"; third-party clients; option schema of
    @ai-sdk/prodia.
    """
    return _job(
        "inference.nano-banana.img2img.v2",
        {
            "prompt": prompt,
            "images": images,
            "aspect_ratio": aspect_ratio,
            "include_messages": include_messages,
        },
        extra,
    )


def recraft_img2img(
    prompt: str,
    *,
    image: str | None = None,
    negative_prompt: str | None = None,
    strength: float | None = None,
    style_id: str | None = None,
    style: Literal[
        "realistic_image", "digital_illustration", "vector_illustration", "icon", "logo_raster"
    ]
    | None = None,
    substyle: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask ``inference.recraft.img2img.v1`` for a picture from pictures and a text.

    Takes 1 or more inputs.

    Args:
        prompt: A text of 1 to 1000 characters. (A)
        image: The name of an input; without it, the input that is sent. (A)
        negative_prompt: A text. (A)
        strength: A number 0 to 1; default ``0``; 0 leaves the picture nearly as it is. (A)
        style_id: A text; a UUID. (A)
        style: One of ``"realistic_image"``, ``"digital_illustration"``,
            ``"vector_illustration"``, ``"icon"``, ``"logo_raster"``; default
            ``"realistic_image"``. (A)
        substyle: A text; one of many, for instance b_and_w, hdr, natural_light,
            studio_portrait, 2d_art_poster, pixel_art, 80s. (A)
        extra: Further members of ``config``.

    Source: job-type page inference-recraft-img2img-v1.
    """
    return _job(
        "inference.recraft.img2img.v1",
        {
            "prompt": prompt,
            "image": image,
            "negative_prompt": negative_prompt,
            "strength": strength,
            "style_id": style_id,
            "style": style,
            "substyle": substyle,
        },
        extra,
    )


def sam3_segment(
    prompt: str,
    *,
    confidence_threshold: float | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask ``inference.sam3.segment.v1`` for masks of what is in a picture.

    Takes 1 input: 256x256 to 4096x4096 pixels, 10 MB at most (A). About 0.088 s (A). About
    $0.0011 (C). One client found the alias unknown to the service.

    Args:
        prompt: A text of 1 to 500 characters. (A)
        confidence_threshold: A number 0 to 1; default ``0.5``. (A)
        extra: Further members of ``config``.

    Source: job-type page inference-sam3-segment-v1; third-party clients.
    """
    return _job(
        "inference.sam3.segment.v1",
        {"prompt": prompt, "confidence_threshold": confidence_threshold},
        extra,
    )


def birefnet_segment(
    *,
    image: str | None = None,
    contour: bool | None = None,
    contour_tolerance: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask ``inference.birefnet.segment.v1`` for masks of what is in a picture.

    Takes 1 input (I). About $0.0025 (B).

    Args:
        image: The name of an input; without it, the input that is sent. (B)
        contour: True or False. (B)
        contour_tolerance: A whole number 0 to 255. (B)
        extra: Further members of ``config``.

    Source: a third-party client that says it tested it live.
    """
    return _job(
        "inference.birefnet.segment.v1",
        {"image": image, "contour": contour, "contour_tolerance": contour_tolerance},
        extra,
    )


def remove_background(*, image: str | None = None, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask ``inference.remove-background.v1`` for a picture without its background.

    Takes 1 input (I). About 0.19 s (B). About $0.0025-0.02 (C). Clients disagree on the price.

    Args:
        image: The name of an input; without it, the input that is sent. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings; a third-party client that quotes the documents;
    third-party clients.
    """
    return _job("inference.remove-background.v1", {"image": image}, extra)


def upscale(
    *,
    image: str | None = None,
    upscale: Literal[2, 4, 8] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask ``inference.upscale.v1`` for a picture, larger.

    Takes 1 input (I). About $0.001-0.003 (B). R-ESRGAN; $0.001, $0.002 and $0.003 for 2, 4 and
    8 times.

    Args:
        image: The name of an input; without it, the input that is sent. (B)
        upscale: One of ``2``, ``4``, ``8``. (B)
        extra: Further members of ``config``.

    Source: a third-party client that says it tested it live.
    """
    return _job("inference.upscale.v1", {"image": image, "upscale": upscale}, extra)


def veo_txt2vid(
    prompt: str,
    *,
    resolution: str | None = None,
    aspect_ratio: str | None = None,
    duration_seconds: int | None = None,
    negative_prompt: str | None = None,
    generate_audio: bool | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask ``inference.veo.txt2vid.v2`` for a video from a text.

    About 90 s (A).

    Args:
        prompt: A text. (C)
        resolution: One of ``"720p"``, ``"1080p"``. (C)
        aspect_ratio: One of ``"16:9"``, ``"9:16"``. (C)
        duration_seconds: One of ``4``, ``6``, ``8``. (C)
        negative_prompt: A text. (C)
        generate_audio: True or False. (C)
        extra: Further members of ``config``.

    Source: model page veo; a third-party client; the model page veo has some of it.
    """
    return _job(
        "inference.veo.txt2vid.v2",
        {
            "prompt": prompt,
            "resolution": resolution,
            "aspect_ratio": aspect_ratio,
            "duration_seconds": duration_seconds,
            "negative_prompt": negative_prompt,
            "generate_audio": generate_audio,
        },
        extra,
    )


def veo_img2vid(
    prompt: str,
    *,
    last_frame: str | None = None,
    resolution: str | None = None,
    aspect_ratio: str | None = None,
    duration_seconds: int | None = None,
    negative_prompt: str | None = None,
    generate_audio: bool | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask ``inference.veo.img2vid.v2`` for a video from a picture.

    Takes 1 or more inputs. About 90 s (A).

    Args:
        prompt: A text. (C)
        last_frame: The name of an input; the picture to end with. (C)
        resolution: One of ``"720p"``, ``"1080p"``. (C)
        aspect_ratio: One of ``"16:9"``, ``"9:16"``. (C)
        duration_seconds: One of ``4``, ``6``, ``8``. (C)
        negative_prompt: A text. (C)
        generate_audio: True or False. (C)
        extra: Further members of ``config``.

    Source: model page veo; a third-party client; the model page veo has some of it.
    """
    return _job(
        "inference.veo.img2vid.v2",
        {
            "prompt": prompt,
            "last_frame": last_frame,
            "resolution": resolution,
            "aspect_ratio": aspect_ratio,
            "duration_seconds": duration_seconds,
            "negative_prompt": negative_prompt,
            "generate_audio": generate_audio,
        },
        extra,
    )


def veo_fast_txt2vid(
    prompt: str,
    *,
    resolution: str | None = None,
    aspect_ratio: str | None = None,
    duration_seconds: int | None = None,
    negative_prompt: str | None = None,
    generate_audio: bool | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask ``inference.veo.fast.txt2vid.v2`` for a video from a text.

    About 60 s (A).

    Args:
        prompt: A text. (C)
        resolution: One of ``"720p"``, ``"1080p"``. (C)
        aspect_ratio: One of ``"16:9"``, ``"9:16"``. (C)
        duration_seconds: One of ``4``, ``6``, ``8``. (C)
        negative_prompt: A text. (C)
        generate_audio: True or False. (C)
        extra: Further members of ``config``.

    Source: model page veo; a third-party client; the model page veo has some of it.
    """
    return _job(
        "inference.veo.fast.txt2vid.v2",
        {
            "prompt": prompt,
            "resolution": resolution,
            "aspect_ratio": aspect_ratio,
            "duration_seconds": duration_seconds,
            "negative_prompt": negative_prompt,
            "generate_audio": generate_audio,
        },
        extra,
    )


def veo_fast_img2vid(
    prompt: str,
    *,
    last_frame: str | None = None,
    resolution: str | None = None,
    aspect_ratio: str | None = None,
    duration_seconds: int | None = None,
    negative_prompt: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask ``inference.veo.fast.img2vid.v1`` for a video from a picture.

    Takes 1 or more inputs. About 60 s (A).

    Args:
        prompt: A text. (C)
        last_frame: The name of an input; the picture to end with. (C)
        resolution: One of ``"720p"``, ``"1080p"``. (C)
        aspect_ratio: One of ``"16:9"``, ``"9:16"``. (C)
        duration_seconds: One of ``4``, ``6``, ``8``. (C)
        negative_prompt: A text. (C)
        extra: Further members of ``config``.

    Source: model page veo; a third-party client; the model page veo has some of it.
    """
    return _job(
        "inference.veo.fast.img2vid.v1",
        {
            "prompt": prompt,
            "last_frame": last_frame,
            "resolution": resolution,
            "aspect_ratio": aspect_ratio,
            "duration_seconds": duration_seconds,
            "negative_prompt": negative_prompt,
        },
        extra,
    )


def wan2_7_txt2vid(
    prompt: str,
    *,
    negative_prompt: str | None = None,
    resolution: Literal["720P", "1080P"] | None = None,
    duration: int | None = None,
    prompt_extend: bool | None = None,
    ratio: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask ``inference.wan2-7.txt2vid.v1`` for a video from a text.

    About 200 s (B).

    Args:
        prompt: A text of at most 5000 characters. (I)
        negative_prompt: A text of at most 500 characters. (B)
        resolution: One of ``"720P"``, ``"1080P"``. (B)
        duration: A whole number 2 to 15; seconds. (B)
        prompt_extend: True or False; default ``True``. (B)
        ratio: A text; for text to video only. (B)
        extra: Further members of ``config``.

    Source: a third-party client that quotes the documents; a third-party client that says it
    tested it live.
    """
    return _job(
        "inference.wan2-7.txt2vid.v1",
        {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "resolution": resolution,
            "duration": duration,
            "prompt_extend": prompt_extend,
            "ratio": ratio,
        },
        extra,
    )


def wan2_7_img2vid(
    prompt: str,
    *,
    image: str | None = None,
    last_frame: str | None = None,
    audio: str | None = None,
    negative_prompt: str | None = None,
    resolution: Literal["720P", "1080P"] | None = None,
    duration: int | None = None,
    prompt_extend: bool | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask ``inference.wan2-7.img2vid.v1`` for a video from a picture.

    Takes 1 to 3 inputs (I). About 200 s (B). About $0.03-0.035 (B). Clients disagree on the
    price.

    Args:
        prompt: A text of at most 5000 characters. (B)
        image: The name of an input; the picture to start with. (B)
        last_frame: The name of an input; the picture to end with. (B)
        audio: The name of an input; WAV or MP3, 2 to 30 s, 15 MB at most. (B)
        negative_prompt: A text of at most 500 characters. (B)
        resolution: One of ``"720P"``, ``"1080P"``. (B)
        duration: A whole number 2 to 15; seconds. (B)
        prompt_extend: True or False; default ``True``. (B)
        extra: Further members of ``config``.

    Source: a third-party client that quotes the documents; a third-party client that says it
    tested it live.
    """
    return _job(
        "inference.wan2-7.img2vid.v1",
        {
            "prompt": prompt,
            "image": image,
            "last_frame": last_frame,
            "audio": audio,
            "negative_prompt": negative_prompt,
            "resolution": resolution,
            "duration": duration,
            "prompt_extend": prompt_extend,
        },
        extra,
    )


def minimax_h3_fast_txt2vid(
    prompt: str,
    *,
    duration: int | None = None,
    resolution: str | None = None,
    seed: int | None = None,
    aspect_ratio: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask ``inference.minimax.h3.fast.txt2vid.v1`` for a video from a text.

    24 frames a second, always with sound.

    Args:
        prompt: A text. (B)
        duration: A whole number; seconds; 4, 8 and 15 were used. (B)
        resolution: A text; "768P" was used. (B)
        seed: A whole number; 0 is a seed too. (B)
        aspect_ratio: A text; not "adaptive". (B)
        extra: Further members of ``config``.

    Source: tests of @ai-sdk/prodia.
    """
    return _job(
        "inference.minimax.h3.fast.txt2vid.v1",
        {
            "prompt": prompt,
            "duration": duration,
            "resolution": resolution,
            "seed": seed,
            "aspect_ratio": aspect_ratio,
        },
        extra,
    )


def minimax_h3_fast_img2vid(
    prompt: str,
    first_frame: str,
    *,
    last_frame: str | None = None,
    duration: int | None = None,
    resolution: str | None = None,
    seed: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask ``inference.minimax.h3.fast.img2vid.v1`` for a video from a picture.

    Takes 1 to 2 inputs (B). 24 frames a second, always with sound.

    Args:
        prompt: A text. (B)
        first_frame: The name of an input; the picture to start with. (B)
        last_frame: The name of an input; the picture to end with. (B)
        duration: A whole number; seconds; 4, 8 and 15 were used. (B)
        resolution: A text; "768P" was used. (B)
        seed: A whole number; 0 is a seed too. (B)
        extra: Further members of ``config``.

    Source: tests of @ai-sdk/prodia.
    """
    return _job(
        "inference.minimax.h3.fast.img2vid.v1",
        {
            "prompt": prompt,
            "first_frame": first_frame,
            "last_frame": last_frame,
            "duration": duration,
            "resolution": resolution,
            "seed": seed,
        },
        extra,
    )


def minimax_h3_fast_ref2vid(
    prompt: str,
    references: Sequence[str],
    *,
    duration: int | None = None,
    resolution: str | None = None,
    seed: int | None = None,
    aspect_ratio: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask ``inference.minimax.h3.fast.ref2vid.v1`` for a video from references.

    Takes 1 to 12 inputs (B). 24 frames a second, always with sound.

    Args:
        prompt: A text. (B)
        references: A list of names of inputs, 1 to 12 of them; in order; at most 9 pictures, 3
            videos and 3 sounds, and not sounds alone. (B)
        duration: A whole number; seconds; 4, 8 and 15 were used. (B)
        resolution: A text; "768P" was used. (B)
        seed: A whole number; 0 is a seed too. (B)
        aspect_ratio: A text; not "adaptive". (B)
        extra: Further members of ``config``.

    Source: tests of @ai-sdk/prodia.
    """
    return _job(
        "inference.minimax.h3.fast.ref2vid.v1",
        {
            "prompt": prompt,
            "references": references,
            "duration": duration,
            "resolution": resolution,
            "seed": seed,
            "aspect_ratio": aspect_ratio,
        },
        extra,
    )


def _job(name: str, config: dict[str, Any], extra: Mapping[str, Any] | None) -> Job:
    given = {field: value for field, value in config.items() if value is not None}
    return Job(name, {**given, **(extra or {})})
