"""
Jobs of known types, with their settings as arguments, so that an editor completes them.

::

    from prodia_async import AsyncProdia, job_types

    job = job_types.flux_fast_schnell_txt2img("a bowl of fruit", steps=4, seed=42)
    response = await client.job(job)

Each function returns a plain `Job` and sends nothing. Only what is given goes
into its ``config``, so the service's own defaults hold for the rest (a setting
that is always sent says so). Nothing is checked here: a type checker sees
wrong names and kinds, and the client's ``validate="known"`` holds a job
against what is documented.

A function is named after its type, without ``inference.``; without a version
it stands for the newest version that is known. Any other type is a
``Job("inference...", {...})`` by hand, which is all that these functions make.

After each setting stands how sure its description is: A documented by Prodia,
B recorded from or tested against the live service, C assumed by other
clients, I our inference. Settings that are missing here go into ``extra``.
"""

# Written by tools/catalogue.py from the catalogue; change that, not this.

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ._models import Job

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


__all__ = [
    "StylePreset",
    "birefnet_segment",
    "facerestore",
    "flux_2_dev_img2img",
    "flux_2_dev_txt2img",
    "flux_2_flex_img2img",
    "flux_2_flex_txt2img",
    "flux_2_klein_4b_img2img",
    "flux_2_klein_4b_txt2img",
    "flux_2_klein_9b_img2img",
    "flux_2_klein_9b_txt2img",
    "flux_2_klein_img2img",
    "flux_2_klein_txt2img",
    "flux_2_max_img2img",
    "flux_2_max_txt2img",
    "flux_2_pro_img2img",
    "flux_2_pro_txt2img",
    "flux_control_dev_ghibli_img2img",
    "flux_dev_img2img",
    "flux_dev_inpainting",
    "flux_dev_txt2img",
    "flux_dev_txt2img_v1",
    "flux_fast_dev_kontext_img2img",
    "flux_fast_dev_txt2img",
    "flux_fast_schnell_img2img",
    "flux_fast_schnell_txt2img",
    "flux_fast_schnell_txt2img_v1",
    "flux_kontext_max_img2img",
    "flux_kontext_max_img2img_v1",
    "flux_kontext_max_txt2img",
    "flux_kontext_max_txt2img_v1",
    "flux_kontext_pro_img2img",
    "flux_kontext_pro_img2img_v1",
    "flux_kontext_pro_txt2img",
    "flux_kontext_pro_txt2img_v1",
    "flux_pro11_txt2img",
    "flux_pro11ultra_txt2img",
    "flux_pro_txt2img",
    "flux_schnell_img2img",
    "flux_schnell_img2img_v1",
    "flux_schnell_txt2img",
    "flux_schnell_txt2img_v1",
    "gemini_3_1_flash_img2img",
    "gemini_3_1_flash_txt2img",
    "gemini_3_pro_img2img",
    "gemini_3_pro_txt2img",
    "hypir_upscale",
    "kling_txt2vid",
    "minimax_h3_fast_img2vid",
    "minimax_h3_fast_ref2vid",
    "minimax_h3_fast_txt2vid",
    "mochi1_txt2vid",
    "nano_banana_img2img",
    "nano_banana_img2img_v1",
    "nano_banana_txt2img",
    "pruna_p_video_aud2vid",
    "pruna_p_video_img2vid",
    "pruna_p_video_txt2vid",
    "qwen_image_edit_lightning_img2img",
    "qwen_image_edit_plus_img2img",
    "qwen_image_edit_plus_lightning_img2img",
    "recraft_img2img",
    "recraft_txt2img",
    "recraft_v4_pro_txt2img",
    "recraft_v4_pro_txt2vec",
    "recraft_v4_txt2img",
    "recraft_v4_txt2vec",
    "remove_background",
    "runway_gen4_vid2vid",
    "sam3_segment",
    "sd15_img2img",
    "sd15_inpainting",
    "sd15_txt2img",
    "sdxl_img2img",
    "sdxl_inpainting",
    "sdxl_txt2img",
    "seedance_lite_img2vid",
    "seedance_lite_txt2vid",
    "seedance_pro_img2vid",
    "seedance_pro_txt2vid",
    "seedance_proturbo_txt2vid",
    "seedream_4_5_img2img",
    "seedream_4_5_txt2img",
    "seedream_4_img2img",
    "seedream_4_txt2img",
    "seedream_5_0_lite_img2img",
    "seedream_5_0_lite_txt2img",
    "seedream_txt2img",
    "sora_2_img2vid",
    "sora_2_pro_img2vid",
    "sora_2_pro_txt2vid",
    "sora_2_txt2vid",
    "upscale",
    "veo_fast_img2vid",
    "veo_fast_txt2vid",
    "veo_fast_txt2vid_v1",
    "veo_img2vid",
    "veo_img2vid_v1",
    "veo_txt2vid",
    "veo_txt2vid_v1",
    "vit_img2label",
    "wan2_2_lightning_img2vid",
    "wan2_2_lightning_txt2vid",
    "wan2_7_img2img",
    "wan2_7_img2vid",
    "wan2_7_txt2img",
    "wan2_7_txt2vid",
    "wan2_7_vid2vid",
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
"""Styles of pictures. (A)"""


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
    Ask for a picture from a prompt.

    The type is ``inference.flux-fast.schnell.txt2img.v1``. About $0.001-0.002 (C).

    Args:
        prompt: A string of 3 to 4096 characters. (A)
        steps: An integer 1 to 4; default ``4``. (A)
        resolution: One of ``"1024x1024"``, ``"1024x768"``, ``"1024x576"``, ``"768x1024"``,
            ``"640x640"``, ``"576x1024"``, ``"512x512"``; default ``"1024x1024"``. (A)
        seed: An integer; made by the service when absent. (A)
        style_preset: One of `StylePreset`. (A)
        progressive: True or False; default ``False``; progressive JPEG; today a parameter of
            the output format. (A)
        extra: Further members of ``config``.

    Source: job-type page inference-flux-fast-schnell-txt2img-v1; a price table of 2025 in a
    public application.
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
    Ask for a picture from a prompt.

    The type is ``inference.flux-fast.schnell.txt2img.v2``. About 0.3 s (A). About $0.0025 (A).
    The price depends on size and steps.

    Args:
        prompt: A string. (B)
        steps: An integer 1 to 4; default ``4``. (B)
        width: An integer 256 to 1920; default ``1024``. (B)
        height: An integer 256 to 1920; default ``1024``. (B)
        seed: An integer; made by the service when absent. (B)
        style_preset: One of `StylePreset`. (B)
        loras: A list of strings, at most 3 of them; for instance "prodia/flux-lora-painting".
            (B)
        progressive: True or False; progressive JPEG. (B)
        extra: Further members of ``config``.

    Source: reference "Inference"; option schema of @ai-sdk/prodia; reference "Price".
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


def flux_fast_schnell_img2img(prompt: str, *, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask for a picture from pictures and a prompt.

    The type is ``inference.flux-fast.schnell.img2img.v2``. Takes 1 or more inputs.

    Args:
        prompt: A string. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings.
    """
    return _job("inference.flux-fast.schnell.img2img.v2", {"prompt": prompt}, extra)


def flux_fast_dev_txt2img(prompt: str, *, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask for a picture from a prompt.

    The type is ``inference.flux-fast.dev.txt2img.v1``. About $0.02 (C).

    Args:
        prompt: A string. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings; a price table of 2025 in a public application.
    """
    return _job("inference.flux-fast.dev.txt2img.v1", {"prompt": prompt}, extra)


def flux_fast_dev_kontext_img2img(
    prompt: str, *, style_preset: str | None = None, extra: Mapping[str, Any] | None = None
) -> Job:
    """
    Ask for a picture from pictures and a prompt.

    The type is ``inference.flux-fast.dev-kontext.img2img.v1``. Takes 1 input: no mask (A).
    About 7 s (A). About $0.025 (A).

    Args:
        prompt: A string. (I)
        style_preset: One of `StylePreset`; the page says style presets, without a list. (I)
        extra: Further members of ``config``.

    Source: model page flux-kontext.
    """
    return _job(
        "inference.flux-fast.dev-kontext.img2img.v1",
        {"prompt": prompt, "style_preset": style_preset},
        extra,
    )


def flux_schnell_txt2img_v1(
    prompt: str, *, steps: int | None = None, extra: Mapping[str, Any] | None = None
) -> Job:
    """
    Ask for a picture from a prompt.

    The type is ``inference.flux.schnell.txt2img.v1``. About 0.2 s (C).

    Args:
        prompt: A string. (I)
        steps: An integer 1 to 4; 1,000 is refused (live test). (I)
        extra: Further members of ``config``.

    Source: tests and history of the official JavaScript SDK; an early client's table of times.
    """
    return _job("inference.flux.schnell.txt2img.v1", {"prompt": prompt, "steps": steps}, extra)


def flux_schnell_txt2img(prompt: str, *, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask for a picture from a prompt.

    The type is ``inference.flux.schnell.txt2img.v2``.

    Args:
        prompt: A string. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings.
    """
    return _job("inference.flux.schnell.txt2img.v2", {"prompt": prompt}, extra)


def flux_schnell_img2img_v1(prompt: str, *, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask for a picture from pictures and a prompt.

    The type is ``inference.flux.schnell.img2img.v1``. Takes 1 or more inputs.

    Args:
        prompt: A string. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings.
    """
    return _job("inference.flux.schnell.img2img.v1", {"prompt": prompt}, extra)


def flux_schnell_img2img(prompt: str, *, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask for a picture from pictures and a prompt.

    The type is ``inference.flux.schnell.img2img.v2``. Takes 1 or more inputs.

    Args:
        prompt: A string. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings.
    """
    return _job("inference.flux.schnell.img2img.v2", {"prompt": prompt}, extra)


def flux_dev_txt2img_v1(
    prompt: str,
    *,
    width: int | None = None,
    height: int | None = None,
    steps: int | None = None,
    guidance_scale: float | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture from a prompt.

    The type is ``inference.flux.dev.txt2img.v1``. About 6.5 s (C). About $0.008 (C).

    Args:
        prompt: A string. (I)
        width: An integer. (C)
        height: An integer. (C)
        steps: An integer; 25 was used. (C)
        guidance_scale: A number; 3 was used; other clients call it guidance. (C)
        extra: Further members of ``config``.

    Source: reference "Inference"; third-party clients; an early client's table of times.
    """
    return _job(
        "inference.flux.dev.txt2img.v1",
        {
            "prompt": prompt,
            "width": width,
            "height": height,
            "steps": steps,
            "guidance_scale": guidance_scale,
        },
        extra,
    )


def flux_dev_txt2img(
    prompt: str,
    *,
    width: int | None = None,
    height: int | None = None,
    steps: int | None = None,
    guidance_scale: float | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture from a prompt.

    The type is ``inference.flux.dev.txt2img.v2``. About 6.5 s (C). About $0.008-0.02 (C).

    Args:
        prompt: A string. (I)
        width: An integer. (C)
        height: An integer. (C)
        steps: An integer; 25 was used. (C)
        guidance_scale: A number; 3 was used; other clients call it guidance. (C)
        extra: Further members of ``config``.

    Source: names seen in clients and listings; third-party clients; an early client's table of
    times; a price table of 2025 in a public application.
    """
    return _job(
        "inference.flux.dev.txt2img.v2",
        {
            "prompt": prompt,
            "width": width,
            "height": height,
            "steps": steps,
            "guidance_scale": guidance_scale,
        },
        extra,
    )


def flux_dev_img2img(prompt: str, *, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask for a picture from pictures and a prompt.

    The type is ``inference.flux.dev.img2img.v2``. Takes 1 or more inputs.

    Args:
        prompt: A string. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings.
    """
    return _job("inference.flux.dev.img2img.v2", {"prompt": prompt}, extra)


def flux_dev_inpainting(
    prompt: str,
    *,
    negative_prompt: str | None = None,
    steps: int | None = None,
    guidance_scale: float | None = None,
    strength: float | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture with a part of it made anew.

    The type is ``inference.flux.dev.inpainting.v2``. Takes 2 inputs: first the picture, then
    the mask; white in the mask is what is replaced (I).

    Args:
        prompt: A string. (I)
        negative_prompt: A string. (C)
        steps: An integer; 25 was used. (C)
        guidance_scale: A number; 3.5 was used; other clients call it guidance. (C)
        strength: A number; 0.95 was used. (C)
        extra: Further members of ``config``.

    Source: names seen in clients and listings; third-party clients.
    """
    return _job(
        "inference.flux.dev.inpainting.v2",
        {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "steps": steps,
            "guidance_scale": guidance_scale,
            "strength": strength,
        },
        extra,
    )


def flux_pro_txt2img(
    prompt: str,
    *,
    width: int | None = None,
    height: int | None = None,
    steps: int | None = None,
    guidance_scale: float | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture from a prompt.

    The type is ``inference.flux.pro.txt2img.v1``. About 14 s (C).

    Args:
        prompt: A string. (I)
        width: An integer. (C)
        height: An integer. (C)
        steps: An integer; 25 was used. (C)
        guidance_scale: A number; 3 was used; other clients call it guidance. (C)
        extra: Further members of ``config``.

    Source: names seen in clients and listings; third-party clients; an early client's table of
    times.
    """
    return _job(
        "inference.flux.pro.txt2img.v1",
        {
            "prompt": prompt,
            "width": width,
            "height": height,
            "steps": steps,
            "guidance_scale": guidance_scale,
        },
        extra,
    )


def flux_pro11_txt2img(prompt: str, *, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask for a picture from a prompt.

    The type is ``inference.flux.pro11.txt2img.v1``. About 2.5 s (C). About $0.04 (C).

    Args:
        prompt: A string. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings; an early client's table of times; a price table
    of 2025 in a public application.
    """
    return _job("inference.flux.pro11.txt2img.v1", {"prompt": prompt}, extra)


def flux_pro11ultra_txt2img(prompt: str, *, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask for a picture from a prompt.

    The type is ``inference.flux.pro11ultra.txt2img.v1``.

    Args:
        prompt: A string. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings.
    """
    return _job("inference.flux.pro11ultra.txt2img.v1", {"prompt": prompt}, extra)


def flux_control_dev_ghibli_img2img(prompt: str, *, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask for a picture from pictures and a prompt.

    The type is ``inference.flux-control.dev.ghibli.img2img.v1``. Takes 1 or more inputs.

    Args:
        prompt: A string. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings.
    """
    return _job("inference.flux-control.dev.ghibli.img2img.v1", {"prompt": prompt}, extra)


def flux_kontext_pro_txt2img_v1(
    prompt: str,
    *,
    prompt_upsampling: bool | None = None,
    safety_tolerance: int | None = None,
    aspect_ratio: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture from a prompt.

    The type is ``inference.flux-kontext.pro.txt2img.v1``. About 6 s (A). About $0.04 (A).

    Args:
        prompt: A string. (I)
        prompt_upsampling: True or False. (C)
        safety_tolerance: An integer 0 to 6; 0 is strict. (A)
        aspect_ratio: A string. (A)
        extra: Further members of ``config``.

    Source: model page flux-kontext; third-party clients.
    """
    return _job(
        "inference.flux-kontext.pro.txt2img.v1",
        {
            "prompt": prompt,
            "prompt_upsampling": prompt_upsampling,
            "safety_tolerance": safety_tolerance,
            "aspect_ratio": aspect_ratio,
        },
        extra,
    )


def flux_kontext_pro_txt2img(
    prompt: str,
    *,
    prompt_upsampling: bool | None = None,
    safety_tolerance: int | None = None,
    aspect_ratio: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture from a prompt.

    The type is ``inference.flux-kontext.pro.txt2img.v2``. About 6 s (A). About $0.04 (A). One
    client sends it pictures; whether it takes them is unknown.

    Args:
        prompt: A string. (I)
        prompt_upsampling: True or False. (C)
        safety_tolerance: An integer 0 to 6; 0 is strict. (A)
        aspect_ratio: A string. (A)
        extra: Further members of ``config``.

    Source: model page flux-kontext; third-party clients.
    """
    return _job(
        "inference.flux-kontext.pro.txt2img.v2",
        {
            "prompt": prompt,
            "prompt_upsampling": prompt_upsampling,
            "safety_tolerance": safety_tolerance,
            "aspect_ratio": aspect_ratio,
        },
        extra,
    )


def flux_kontext_pro_img2img_v1(
    prompt: str,
    *,
    prompt_upsampling: bool | None = None,
    safety_tolerance: int | None = None,
    aspect_ratio: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture from pictures and a prompt.

    The type is ``inference.flux-kontext.pro.img2img.v1``. Takes 1 input: no mask (A). About 6 s
    (A). About $0.04 (A).

    Args:
        prompt: A string. (I)
        prompt_upsampling: True or False. (C)
        safety_tolerance: An integer 0 to 6; 0 is strict. (A)
        aspect_ratio: A string. (A)
        extra: Further members of ``config``.

    Source: model page flux-kontext; third-party clients.
    """
    return _job(
        "inference.flux-kontext.pro.img2img.v1",
        {
            "prompt": prompt,
            "prompt_upsampling": prompt_upsampling,
            "safety_tolerance": safety_tolerance,
            "aspect_ratio": aspect_ratio,
        },
        extra,
    )


def flux_kontext_pro_img2img(
    prompt: str,
    *,
    prompt_upsampling: bool | None = None,
    safety_tolerance: int | None = None,
    aspect_ratio: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture from pictures and a prompt.

    The type is ``inference.flux-kontext.pro.img2img.v2``. Takes 1 input: no mask (A). About 6 s
    (A). About $0.04 (A).

    Args:
        prompt: A string. (I)
        prompt_upsampling: True or False. (C)
        safety_tolerance: An integer 0 to 6; 0 is strict. (A)
        aspect_ratio: A string. (A)
        extra: Further members of ``config``.

    Source: model page flux-kontext; third-party clients.
    """
    return _job(
        "inference.flux-kontext.pro.img2img.v2",
        {
            "prompt": prompt,
            "prompt_upsampling": prompt_upsampling,
            "safety_tolerance": safety_tolerance,
            "aspect_ratio": aspect_ratio,
        },
        extra,
    )


def flux_kontext_max_txt2img_v1(
    prompt: str,
    *,
    prompt_upsampling: bool | None = None,
    safety_tolerance: int | None = None,
    aspect_ratio: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture from a prompt.

    The type is ``inference.flux-kontext.max.txt2img.v1``. About 7 s (A). About $0.08 (A).

    Args:
        prompt: A string. (I)
        prompt_upsampling: True or False. (C)
        safety_tolerance: An integer 0 to 6; 0 is strict. (A)
        aspect_ratio: A string. (A)
        extra: Further members of ``config``.

    Source: model page flux-kontext; third-party clients.
    """
    return _job(
        "inference.flux-kontext.max.txt2img.v1",
        {
            "prompt": prompt,
            "prompt_upsampling": prompt_upsampling,
            "safety_tolerance": safety_tolerance,
            "aspect_ratio": aspect_ratio,
        },
        extra,
    )


def flux_kontext_max_txt2img(
    prompt: str,
    *,
    prompt_upsampling: bool | None = None,
    safety_tolerance: int | None = None,
    aspect_ratio: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture from a prompt.

    The type is ``inference.flux-kontext.max.txt2img.v2``. About 7 s (A). About $0.08 (A).

    Args:
        prompt: A string. (I)
        prompt_upsampling: True or False. (C)
        safety_tolerance: An integer 0 to 6; 0 is strict. (A)
        aspect_ratio: A string. (A)
        extra: Further members of ``config``.

    Source: model page flux-kontext; third-party clients.
    """
    return _job(
        "inference.flux-kontext.max.txt2img.v2",
        {
            "prompt": prompt,
            "prompt_upsampling": prompt_upsampling,
            "safety_tolerance": safety_tolerance,
            "aspect_ratio": aspect_ratio,
        },
        extra,
    )


def flux_kontext_max_img2img_v1(
    prompt: str,
    *,
    prompt_upsampling: bool | None = None,
    safety_tolerance: int | None = None,
    aspect_ratio: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture from pictures and a prompt.

    The type is ``inference.flux-kontext.max.img2img.v1``. Takes 1 input: no mask (A). About 7 s
    (A). About $0.08 (A).

    Args:
        prompt: A string. (I)
        prompt_upsampling: True or False. (C)
        safety_tolerance: An integer 0 to 6; 0 is strict. (A)
        aspect_ratio: A string. (A)
        extra: Further members of ``config``.

    Source: model page flux-kontext; third-party clients.
    """
    return _job(
        "inference.flux-kontext.max.img2img.v1",
        {
            "prompt": prompt,
            "prompt_upsampling": prompt_upsampling,
            "safety_tolerance": safety_tolerance,
            "aspect_ratio": aspect_ratio,
        },
        extra,
    )


def flux_kontext_max_img2img(
    prompt: str,
    *,
    prompt_upsampling: bool | None = None,
    safety_tolerance: int | None = None,
    aspect_ratio: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture from pictures and a prompt.

    The type is ``inference.flux-kontext.max.img2img.v2``. Takes 1 input: no mask (A). About 7 s
    (A). About $0.08 (A).

    Args:
        prompt: A string. (I)
        prompt_upsampling: True or False. (C)
        safety_tolerance: An integer 0 to 6; 0 is strict. (A)
        aspect_ratio: A string. (A)
        extra: Further members of ``config``.

    Source: model page flux-kontext; third-party clients.
    """
    return _job(
        "inference.flux-kontext.max.img2img.v2",
        {
            "prompt": prompt,
            "prompt_upsampling": prompt_upsampling,
            "safety_tolerance": safety_tolerance,
            "aspect_ratio": aspect_ratio,
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
    Ask for a picture from a prompt.

    The type is ``inference.flux-2.dev.txt2img.v1``. About 3 s (A). About $0.01-0.015 (A).

    Args:
        prompt: A string of 1 to 32768 characters. (I)
        width: An integer 512 to 1920; the page gives the range as resolution. (A)
        height: An integer 512 to 1920; the page gives the range as resolution. (A)
        steps: An integer 1 to 50. (A)
        guidance: A number 1 to 10. (A)
        style_preset: One of `StylePreset`. (I)
        seed: An integer; made by the service when absent. (I)
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
    Ask for a picture from pictures and a prompt.

    The type is ``inference.flux-2.dev.img2img.v1``. Takes 1 to 8 inputs (A). About 3 s (A).
    About $0.01-0.015 (A).

    Args:
        prompt: A string of 1 to 32768 characters. (I)
        images: A list of names of inputs, 1 to 8 of them; without it, the inputs in the order
            they are sent. (A)
        width: An integer 512 to 1920; the page gives the range as resolution. (A)
        height: An integer 512 to 1920; the page gives the range as resolution. (A)
        steps: An integer 1 to 50. (A)
        guidance: A number 1 to 10. (A)
        style_preset: One of `StylePreset`. (I)
        seed: An integer; made by the service when absent. (I)
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
    Ask for a picture from a prompt.

    The type is ``inference.flux-2.pro.txt2img.v1``. About 12 s (A). About $0.03 (A).

    Args:
        prompt: A string of 1 to 32768 characters. (I)
        width: An integer 64 to 4096, a multiple of 16. (A)
        height: An integer 64 to 4096, a multiple of 16. (A)
        seed: An integer; made by the service when absent. (I)
        safety_tolerance: An integer 0 to 5; default ``2``. (I)
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
    Ask for a picture from pictures and a prompt.

    The type is ``inference.flux-2.pro.img2img.v1``. Takes 1 to 8 inputs: 9 megapixels together
    at most (A). About 12 s (A). About $0.03 (A). Its schema is open: other fields are no error.

    Args:
        prompt: A string of 1 to 32768 characters. (A)
        images: A list of names of inputs, 1 to 8 of them; without it, the inputs in the order
            they are sent. (A)
        width: An integer 64 to 4096, a multiple of 16; by default that of the input. (A)
        height: An integer 64 to 4096, a multiple of 16; by default that of the input. (A)
        seed: An integer; made by the service when absent. (A)
        safety_tolerance: An integer 0 to 5; default ``2``. (A)
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
    Ask for a picture from a prompt.

    The type is ``inference.flux-2.flex.txt2img.v1``. About 22 s (A). About $0.06 (A).

    Args:
        prompt: A string of 1 to 32768 characters. (I)
        width: An integer 64 to 4096. (A)
        height: An integer 64 to 4096. (A)
        seed: An integer; made by the service when absent. (I)
        safety_tolerance: An integer 0 to 5; default ``2``. (I)
        steps: An integer 1 to 50; default ``50``. (I)
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
    Ask for a picture from pictures and a prompt.

    The type is ``inference.flux-2.flex.img2img.v1``. Takes 1 to 10 inputs: 8 in its schema, 10
    in the guide and on the model page; the larger holds here (A). About 22 s (A). About $0.06
    (A). Its schema is open: other fields are no error.

    Args:
        prompt: A string of 1 to 32768 characters. (A)
        images: A list of names of inputs, 1 to 10 of them; without it, the inputs in the order
            they are sent; 8 in its schema, 10 in the guide. (A)
        width: An integer 64 to 4096, a multiple of 16; by default that of the input. (A)
        height: An integer 64 to 4096, a multiple of 16; by default that of the input. (A)
        seed: An integer; made by the service when absent. (A)
        safety_tolerance: An integer 0 to 5; default ``2``. (A)
        steps: An integer 1 to 50; default ``50``. (A)
        guidance: A number 1.5 to 10; default ``4.5``. (A)
        aspect_ratio: A string; the guide sends "1:1"; not in the schema. (A)
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
    Ask for a picture from a prompt.

    The type is ``inference.flux-2.max.txt2img.v1``. About 15 s (A). About $0.04 (A).

    Args:
        prompt: A string of 1 to 32768 characters. (I)
        width: An integer 256 to 2048; the page gives the range as resolution. (A)
        height: An integer 256 to 2048; the page gives the range as resolution. (A)
        seed: An integer; made by the service when absent. (I)
        safety_tolerance: An integer 0 to 5; default ``2``. (I)
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
    Ask for a picture from pictures and a prompt.

    The type is ``inference.flux-2.max.img2img.v1``. Takes 1 to 8 inputs (A). About 15 s (A).
    About $0.04 (A).

    Args:
        prompt: A string of 1 to 32768 characters. (I)
        images: A list of names of inputs, 1 to 8 of them; without it, the inputs in the order
            they are sent. (A)
        width: An integer 256 to 2048; the page gives the range as resolution. (A)
        height: An integer 256 to 2048; the page gives the range as resolution. (A)
        seed: An integer; made by the service when absent. (I)
        safety_tolerance: An integer 0 to 5; default ``2``. (I)
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


def flux_2_klein_txt2img(
    prompt: str,
    *,
    width: int | None = None,
    height: int | None = None,
    steps: int | None = None,
    seed: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture from a prompt.

    The type is ``inference.flux-2.klein.txt2img.v1``.

    Args:
        prompt: A string. (I)
        width: An integer at least 512. (C)
        height: An integer at least 512. (C)
        steps: An integer; Prodia itself uses 4. (A)
        seed: An integer; made by the service when absent. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings; third-party clients; prompt of Prodia's own
    vibedesign.
    """
    return _job(
        "inference.flux-2.klein.txt2img.v1",
        {"prompt": prompt, "width": width, "height": height, "steps": steps, "seed": seed},
        extra,
    )


def flux_2_klein_img2img(
    prompt: str,
    *,
    width: int | None = None,
    height: int | None = None,
    steps: int | None = None,
    seed: int | None = None,
    images: Sequence[str] | None = None,
    strength: float | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture from pictures and a prompt.

    The type is ``inference.flux-2.klein.img2img.v1``. Takes 1 or more inputs.

    Args:
        prompt: A string. (I)
        width: An integer at least 512. (C)
        height: An integer at least 512. (C)
        steps: An integer; Prodia itself uses 4. (A)
        seed: An integer; made by the service when absent. (I)
        images: A list of names of inputs; without it, the inputs in the order they are sent.
            (I)
        strength: A number; 0.3 to 0.65 were used. (B)
        extra: Further members of ``config``.

    Source: names seen in clients and listings; third-party clients; prompt of Prodia's own
    vibedesign; a third-party client that says it tested it live.
    """
    return _job(
        "inference.flux-2.klein.img2img.v1",
        {
            "prompt": prompt,
            "width": width,
            "height": height,
            "steps": steps,
            "seed": seed,
            "images": images,
            "strength": strength,
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
    Ask for a picture from a prompt.

    The type is ``inference.flux-2.klein.4b.txt2img.v1``. About $0.0015 (C).

    Args:
        prompt: A string. (I)
        width: An integer at least 512. (C)
        height: An integer at least 512. (C)
        steps: An integer; Prodia itself uses 4. (A)
        seed: An integer; made by the service when absent. (I)
        extra: Further members of ``config``.

    Source: prompt of Prodia's own vibedesign; third-party clients.
    """
    return _job(
        "inference.flux-2.klein.4b.txt2img.v1",
        {"prompt": prompt, "width": width, "height": height, "steps": steps, "seed": seed},
        extra,
    )


def flux_2_klein_4b_img2img(
    prompt: str,
    *,
    width: int | None = None,
    height: int | None = None,
    steps: int | None = None,
    seed: int | None = None,
    images: Sequence[str] | None = None,
    strength: float | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture from pictures and a prompt.

    The type is ``inference.flux-2.klein.4b.img2img.v1``. Takes 1 or more inputs. About $0.0025
    (C).

    Args:
        prompt: A string. (I)
        width: An integer at least 512. (C)
        height: An integer at least 512. (C)
        steps: An integer; Prodia itself uses 4. (A)
        seed: An integer; made by the service when absent. (I)
        images: A list of names of inputs; without it, the inputs in the order they are sent.
            (I)
        strength: A number; 0.3 to 0.65 were used. (B)
        extra: Further members of ``config``.

    Source: a third-party client that says it tested it live; third-party clients; prompt of
    Prodia's own vibedesign.
    """
    return _job(
        "inference.flux-2.klein.4b.img2img.v1",
        {
            "prompt": prompt,
            "width": width,
            "height": height,
            "steps": steps,
            "seed": seed,
            "images": images,
            "strength": strength,
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
    Ask for a picture from a prompt.

    The type is ``inference.flux-2.klein.9b.txt2img.v1``.

    Args:
        prompt: A string. (I)
        width: An integer at least 512. (C)
        height: An integer at least 512. (C)
        steps: An integer; Prodia itself uses 4. (A)
        seed: An integer; made by the service when absent. (I)
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
    width: int | None = None,
    height: int | None = None,
    steps: int | None = None,
    seed: int | None = None,
    images: Sequence[str] | None = None,
    strength: float | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture from pictures and a prompt.

    The type is ``inference.flux-2.klein.9b.img2img.v1``. Takes 1 or more inputs. About $0.005
    (C). A prompt alone is enough beside the picture.

    Args:
        prompt: A string. (I)
        width: An integer at least 512. (C)
        height: An integer at least 512. (C)
        steps: An integer; Prodia itself uses 4. (A)
        seed: An integer; made by the service when absent. (I)
        images: A list of names of inputs; without it, the inputs in the order they are sent.
            (I)
        strength: A number; 0.3 to 0.65 were used. (B)
        extra: Further members of ``config``.

    Source: names seen in clients and listings; third-party clients; prompt of Prodia's own
    vibedesign; a third-party client that says it tested it live.
    """
    return _job(
        "inference.flux-2.klein.9b.img2img.v1",
        {
            "prompt": prompt,
            "width": width,
            "height": height,
            "steps": steps,
            "seed": seed,
            "images": images,
            "strength": strength,
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
    Ask for a picture from a prompt.

    The type is ``inference.nano-banana.txt2img.v2``. About 8 s (B). About $0.039 (B). Takes no
    seed, negative_prompt, width or height.

    Args:
        prompt: A string of at most 2500 characters. (B)
        aspect_ratio: One of ``"auto"``, ``"1:1"``, ``"2:3"``, ``"3:2"``, ``"3:4"``, ``"4:3"``,
            ``"4:5"``, ``"5:4"``, ``"4:7"``, ``"7:4"``, ``"9:16"``, ``"16:9"``, ``"9:21"``,
            ``"21:9"``; default ``"auto"``; two clients have different lists; these are both
            together. (C)
        include_messages: True or False; also what the model says, as message.txt. (B)
        extra: Further members of ``config``.

    Source: model page nano-banana; a third-party client that quotes the model page; third-party
    clients; option schema of @ai-sdk/prodia.
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
    Ask for a picture from pictures and a prompt.

    The type is ``inference.nano-banana.img2img.v2``. Takes 1 to 3 inputs (A). About 8 s (A).
    About $0.039 (A). Takes no seed, negative_prompt, width or height; clients disagree whether
    it may run asynchronously.

    Args:
        prompt: A string of at most 2500 characters. (B)
        images: A list of names of inputs, 1 to 3 of them; without it, the inputs in the order
            they are sent. (A)
        aspect_ratio: One of ``"auto"``, ``"1:1"``, ``"2:3"``, ``"3:2"``, ``"3:4"``, ``"4:3"``,
            ``"4:5"``, ``"5:4"``, ``"4:7"``, ``"7:4"``, ``"9:16"``, ``"16:9"``, ``"9:21"``,
            ``"21:9"``; default ``"auto"``; auto is that of the first input; two clients have
            different lists, and these are both together. (C)
        include_messages: True or False; also what the model says, as message.txt. (B)
        extra: Further members of ``config``.

    Source: guide "Combining Multiple Images"; a third-party client that quotes the model page;
    third-party clients; option schema of @ai-sdk/prodia.
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


def nano_banana_img2img_v1(prompt: str, *, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask for a picture from pictures and a prompt.

    The type is ``inference.nano-banana.img2img.v1``. Takes 1 input (B). About $0.039 (B). Old.

    Args:
        prompt: A string. (I)
        extra: Further members of ``config``.

    Source: a third-party client that quotes the model page.
    """
    return _job("inference.nano-banana.img2img.v1", {"prompt": prompt}, extra)


def gemini_3_pro_txt2img(
    prompt: str,
    *,
    resolution: Literal["1K", "2K", "4K"] | None = None,
    aspect_ratio: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture from a prompt.

    The type is ``inference.gemini-3-pro.txt2img.v1``. About 10 s (A). About $0.15-0.3 (A).
    $0.15 for 1K and 2K, $0.30 for 4K.

    Args:
        prompt: A string. (I)
        resolution: One of ``"1K"``, ``"2K"``, ``"4K"``; with a capital K; the price depends on
            it. (A)
        aspect_ratio: A string; 1:1, 4:3, 3:4, 16:9, 9:16, 21:9 and 9:21 were used. (C)
        extra: Further members of ``config``.

    Source: model page gemini-3; third-party clients.
    """
    return _job(
        "inference.gemini-3-pro.txt2img.v1",
        {"prompt": prompt, "resolution": resolution, "aspect_ratio": aspect_ratio},
        extra,
    )


def gemini_3_pro_img2img(
    prompt: str,
    *,
    resolution: Literal["1K", "2K", "4K"] | None = None,
    aspect_ratio: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture from pictures and a prompt.

    The type is ``inference.gemini-3-pro.img2img.v1``. Takes 1 to 3 inputs (A). About 12 s (A).
    About $0.15-0.3 (A). $0.15 for 1K and 2K, $0.30 for 4K.

    Args:
        prompt: A string. (I)
        resolution: One of ``"1K"``, ``"2K"``, ``"4K"``; with a capital K; the price depends on
            it. (A)
        aspect_ratio: A string; 1:1, 4:3, 3:4, 16:9, 9:16, 21:9 and 9:21 were used. (C)
        extra: Further members of ``config``.

    Source: model page gemini-3; third-party clients; guide "Combining Multiple Images".
    """
    return _job(
        "inference.gemini-3-pro.img2img.v1",
        {"prompt": prompt, "resolution": resolution, "aspect_ratio": aspect_ratio},
        extra,
    )


def gemini_3_1_flash_txt2img(
    prompt: str,
    *,
    google_search: bool | None = None,
    resolution: Literal["1K", "2K", "4K"] | None = None,
    aspect_ratio: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture from a prompt.

    The type is ``inference.gemini-3-1-flash.txt2img.v1``. About 30 s (A). About $0.08-0.16 (A).
    $0.08 for 1K, $0.12 for 2K, $0.16 for 4K.

    Args:
        prompt: A string. (I)
        google_search: True or False; looks things up on the web. (A)
        resolution: One of ``"1K"``, ``"2K"``, ``"4K"``; with a capital K; the price depends on
            it. (A)
        aspect_ratio: A string; 1:1, 4:3, 3:4, 16:9, 9:16, 21:9 and 9:21 were used. (C)
        extra: Further members of ``config``.

    Source: model page gemini-3; third-party clients.
    """
    return _job(
        "inference.gemini-3-1-flash.txt2img.v1",
        {
            "prompt": prompt,
            "google_search": google_search,
            "resolution": resolution,
            "aspect_ratio": aspect_ratio,
        },
        extra,
    )


def gemini_3_1_flash_img2img(
    prompt: str,
    *,
    google_search: bool | None = None,
    resolution: Literal["1K", "2K", "4K"] | None = None,
    aspect_ratio: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture from pictures and a prompt.

    The type is ``inference.gemini-3-1-flash.img2img.v1``. Takes 1 to 14 inputs (A). About 35 s
    (A). About $0.08-0.16 (A). $0.08 for 1K, $0.12 for 2K, $0.16 for 4K.

    Args:
        prompt: A string. (I)
        google_search: True or False; looks things up on the web. (A)
        resolution: One of ``"1K"``, ``"2K"``, ``"4K"``; with a capital K; the price depends on
            it. (A)
        aspect_ratio: A string; 1:1, 4:3, 3:4, 16:9, 9:16, 21:9 and 9:21 were used. (C)
        extra: Further members of ``config``.

    Source: model page gemini-3; third-party clients; guide "Combining Multiple Images".
    """
    return _job(
        "inference.gemini-3-1-flash.img2img.v1",
        {
            "prompt": prompt,
            "google_search": google_search,
            "resolution": resolution,
            "aspect_ratio": aspect_ratio,
        },
        extra,
    )


def seedream_txt2img(prompt: str, *, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask for a picture from a prompt.

    The type is ``inference.seedream.txt2img.v1``.

    Args:
        prompt: A string. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings.
    """
    return _job("inference.seedream.txt2img.v1", {"prompt": prompt}, extra)


def seedream_4_txt2img(
    prompt: str,
    *,
    width: int | None = None,
    height: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture from a prompt.

    The type is ``inference.seedream-4.txt2img.v1``. About 15 s (A). Has no seed.

    Args:
        prompt: A string. (I)
        width: An integer 1024 to 4096; default ``2048``. (A)
        height: An integer 1024 to 4096; default ``2048``. (A)
        extra: Further members of ``config``.

    Source: model page seedream.
    """
    return _job(
        "inference.seedream-4.txt2img.v1",
        {"prompt": prompt, "width": width, "height": height},
        extra,
    )


def seedream_4_img2img(
    prompt: str,
    *,
    width: int | None = None,
    height: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture from pictures and a prompt.

    The type is ``inference.seedream-4.img2img.v1``. Takes 1 input (A). About 15 s (A). Has no
    seed.

    Args:
        prompt: A string. (I)
        width: An integer 1024 to 4096; default ``2048``. (A)
        height: An integer 1024 to 4096; default ``2048``. (A)
        extra: Further members of ``config``.

    Source: model page seedream.
    """
    return _job(
        "inference.seedream-4.img2img.v1",
        {"prompt": prompt, "width": width, "height": height},
        extra,
    )


def seedream_4_5_txt2img(
    prompt: str,
    *,
    width: int | None = None,
    height: int | None = None,
    seed: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture from a prompt.

    The type is ``inference.seedream-4-5.txt2img.v1``. About 15 s (A).

    Args:
        prompt: A string. (I)
        width: An integer 1920 to 4096; default ``2048``. (A)
        height: An integer 1920 to 4096; default ``2048``. (A)
        seed: An integer; the only version of Seedream that has one. (A)
        extra: Further members of ``config``.

    Source: model page seedream.
    """
    return _job(
        "inference.seedream-4-5.txt2img.v1",
        {"prompt": prompt, "width": width, "height": height, "seed": seed},
        extra,
    )


def seedream_4_5_img2img(
    prompt: str,
    *,
    width: int | None = None,
    height: int | None = None,
    seed: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture from pictures and a prompt.

    The type is ``inference.seedream-4-5.img2img.v1``. Takes 1 input (A). About 15 s (A). The
    model page says that 4.5 takes a picture; the name is by analogy.

    Args:
        prompt: A string. (I)
        width: An integer 1920 to 4096; default ``2048``. (A)
        height: An integer 1920 to 4096; default ``2048``. (A)
        seed: An integer; the only version of Seedream that has one. (A)
        extra: Further members of ``config``.

    Source: model page seedream.
    """
    return _job(
        "inference.seedream-4-5.img2img.v1",
        {"prompt": prompt, "width": width, "height": height, "seed": seed},
        extra,
    )


def seedream_5_0_lite_txt2img(
    prompt: str,
    *,
    width: int | None = None,
    height: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture from a prompt.

    The type is ``inference.seedream-5-0.lite.txt2img.v1``. About 15 s (A). Has no seed.

    Args:
        prompt: A string. (I)
        width: An integer 1024 to 4096; default ``2048``. (A)
        height: An integer 1024 to 4096; default ``2048``. (A)
        extra: Further members of ``config``.

    Source: model page seedream.
    """
    return _job(
        "inference.seedream-5-0.lite.txt2img.v1",
        {"prompt": prompt, "width": width, "height": height},
        extra,
    )


def seedream_5_0_lite_img2img(
    prompt: str,
    *,
    width: int | None = None,
    height: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture from pictures and a prompt.

    The type is ``inference.seedream-5-0.lite.img2img.v1``. Takes 1 to 14 inputs (A). About 15 s
    (A). Has no seed.

    Args:
        prompt: A string. (I)
        width: An integer 1024 to 4096; default ``2048``. (A)
        height: An integer 1024 to 4096; default ``2048``. (A)
        extra: Further members of ``config``.

    Source: guide "Combining Multiple Images"; model page seedream.
    """
    return _job(
        "inference.seedream-5-0.lite.img2img.v1",
        {"prompt": prompt, "width": width, "height": height},
        extra,
    )


def qwen_image_edit_lightning_img2img(
    prompt: str, *, extra: Mapping[str, Any] | None = None
) -> Job:
    """
    Ask for a picture from pictures and a prompt.

    The type is ``inference.qwen.image-edit.lightning.img2img.v1``. Takes 1 or more inputs.

    Args:
        prompt: A string. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings.
    """
    return _job("inference.qwen.image-edit.lightning.img2img.v1", {"prompt": prompt}, extra)


def qwen_image_edit_plus_img2img(prompt: str, *, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask for a picture from pictures and a prompt.

    The type is ``inference.qwen.image-edit.plus.img2img.v2``. Takes 1 or more inputs.

    Args:
        prompt: A string. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings.
    """
    return _job("inference.qwen.image-edit.plus.img2img.v2", {"prompt": prompt}, extra)


def qwen_image_edit_plus_lightning_img2img(
    prompt: str, *, extra: Mapping[str, Any] | None = None
) -> Job:
    """
    Ask for a picture from pictures and a prompt.

    The type is ``inference.qwen.image-edit.plus.lightning.img2img.v2``. Takes 1 or more inputs.

    Args:
        prompt: A string. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings.
    """
    return _job("inference.qwen.image-edit.plus.lightning.img2img.v2", {"prompt": prompt}, extra)


def sdxl_txt2img(
    prompt: str,
    *,
    negative_prompt: str | None = None,
    steps: int | None = None,
    width: int | None = None,
    height: int | None = None,
    seed: int | None = None,
    style_preset: str | None = None,
    cfg_scale: float | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture from a prompt.

    The type is ``inference.sdxl.txt2img.v1``. About 1.8 s (C). About $0.003-0.004 (C).

    Args:
        prompt: A string. (I)
        negative_prompt: A string. (C)
        steps: An integer. (C)
        width: An integer. (C)
        height: An integer. (C)
        seed: An integer. (C)
        style_preset: One of `StylePreset`. (C)
        cfg_scale: A number; 7 was used; other clients call it guidance or guidance_scale. (C)
        extra: Further members of ``config``.

    Source: names seen in clients and listings; third-party clients; an early client's table of
    times.
    """
    return _job(
        "inference.sdxl.txt2img.v1",
        {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "steps": steps,
            "width": width,
            "height": height,
            "seed": seed,
            "style_preset": style_preset,
            "cfg_scale": cfg_scale,
        },
        extra,
    )


def sdxl_img2img(prompt: str, *, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask for a picture from pictures and a prompt.

    The type is ``inference.sdxl.img2img.v1``. Takes 1 or more inputs.

    Args:
        prompt: A string. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings.
    """
    return _job("inference.sdxl.img2img.v1", {"prompt": prompt}, extra)


def sdxl_inpainting(
    prompt: str,
    *,
    negative_prompt: str | None = None,
    steps: int | None = None,
    cfg_scale: float | None = None,
    strength: float | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture with a part of it made anew.

    The type is ``inference.sdxl.inpainting.v1``. Takes 1 to 2 inputs: first the picture, then
    the mask; white in the mask is what is replaced (I). The guide "Combining Multiple Images"
    has it with one input; two clients in use send a mask as well.

    Args:
        prompt: A string. (I)
        negative_prompt: A string. (C)
        steps: An integer; 20 to 30 were used. (C)
        cfg_scale: A number; 7 was used. (C)
        strength: A number. (C)
        extra: Further members of ``config``.

    Source: guide "Combining Multiple Images"; third-party clients.
    """
    return _job(
        "inference.sdxl.inpainting.v1",
        {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "steps": steps,
            "cfg_scale": cfg_scale,
            "strength": strength,
        },
        extra,
    )


def sd15_txt2img(prompt: str, *, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask for a picture from a prompt.

    The type is ``inference.sd15.txt2img.v1``. About 1.2 s (C). About $0.0025-0.008 (C).

    Args:
        prompt: A string. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings; an early client's table of times; a price table
    of 2025 in a public application.
    """
    return _job("inference.sd15.txt2img.v1", {"prompt": prompt}, extra)


def sd15_img2img(prompt: str, *, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask for a picture from pictures and a prompt.

    The type is ``inference.sd15.img2img.v1``. Takes 1 or more inputs.

    Args:
        prompt: A string. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings.
    """
    return _job("inference.sd15.img2img.v1", {"prompt": prompt}, extra)


def sd15_inpainting(prompt: str, *, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask for a picture with a part of it made anew.

    The type is ``inference.sd15.inpainting.v1``. Takes 2 inputs: first the picture, then the
    mask; white in the mask is what is replaced (I).

    Args:
        prompt: A string. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings.
    """
    return _job("inference.sd15.inpainting.v1", {"prompt": prompt}, extra)


def wan2_7_txt2img(prompt: str, *, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask for a picture from a prompt.

    The type is ``inference.wan2-7.txt2img.v1``. About 40 s (B). The only one that can think
    first.

    Args:
        prompt: A string. (I)
        extra: Further members of ``config``.

    Source: a third-party client that quotes the model page.
    """
    return _job("inference.wan2-7.txt2img.v1", {"prompt": prompt}, extra)


def wan2_7_img2img(prompt: str, *, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask for a picture from pictures and a prompt.

    The type is ``inference.wan2-7.img2img.v1``. Takes 1 or more inputs. About 40 s (B). About
    $0.006 (B).

    Args:
        prompt: A string. (I)
        extra: Further members of ``config``.

    Source: a third-party client that quotes the model page.
    """
    return _job("inference.wan2-7.img2img.v1", {"prompt": prompt}, extra)


def recraft_txt2img(
    prompt: str,
    *,
    n: Literal[1, 2] | None = None,
    style: Literal[
        "realistic_image", "digital_illustration", "vector_illustration", "icon", "logo_raster"
    ]
    | None = None,
    substyle: Literal[
        "b_and_w",
        "enterprise",
        "evening_light",
        "faded_nostalgia",
        "forest_life",
        "hard_flash",
        "hdr",
        "motion_blur",
        "mystic_naturalism",
        "natural_light",
        "natural_tones",
        "organic_calm",
        "real_life_glow",
        "retro_realism",
        "retro_snapshot",
        "studio_portrait",
        "urban_drama",
        "village_realism",
        "warm_folk",
        "2d_art_poster",
        "antiquarian",
        "bold_fantasy",
        "child_book",
        "crosshatch",
        "3d",
        "80s",
        "glow",
        "pixel_art",
        "bold_stroke",
        "chemistry",
        "colored_stencil",
        "cosmics",
        "cutout",
        "editorial",
        "cartoon",
        "doodle_line_art",
        "engraving",
        "flat_2",
        "broken_line",
        "colored_outline",
        "doodle_fill",
        "offset_fill",
        "pictogram",
        "emblem_graffiti",
        "emblem_pop_art",
        "emblem_punk",
        "emblem_stamp",
        "emblem_vintage",
    ]
    | None = None,
    style_id: str | None = None,
    negative_prompt: str | None = None,
    artistic_level: int | None = None,
    size: Literal[
        "1024x1024",
        "1024x1280",
        "1024x1365",
        "1024x1434",
        "1024x1536",
        "1024x1707",
        "1024x1820",
        "1024x2048",
        "1280x1024",
        "1365x1024",
        "1434x1024",
        "1536x1024",
        "1707x1024",
        "1820x1024",
        "2048x1024",
    ]
    | None = None,
    text_layout: Sequence[Mapping[str, Any]] | None = None,
    controls: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture from a prompt.

    The type is ``inference.recraft.txt2img.v1``. About 10 s (C). Has no seed; two captures of
    its page differ, and what either has is here.

    Args:
        prompt: A string of at most 1000 characters. (A)
        n: One of ``1``, ``2``; default ``1``; outputs; in the older capture. (A)
        style: One of ``"realistic_image"``, ``"digital_illustration"``,
            ``"vector_illustration"``, ``"icon"``, ``"logo_raster"``; default
            ``"realistic_image"``. (A)
        substyle: One of ``"b_and_w"``, ``"enterprise"``, ``"evening_light"``,
            ``"faded_nostalgia"``, ``"forest_life"``, ``"hard_flash"``, ``"hdr"``,
            ``"motion_blur"``, ``"mystic_naturalism"``, ``"natural_light"``,
            ``"natural_tones"``, ``"organic_calm"``, ``"real_life_glow"``, ``"retro_realism"``,
            ``"retro_snapshot"``, ``"studio_portrait"``, ``"urban_drama"``,
            ``"village_realism"``, ``"warm_folk"``, ``"2d_art_poster"``, ``"antiquarian"``,
            ``"bold_fantasy"``, ``"child_book"``, ``"crosshatch"``, ``"3d"``, ``"80s"``,
            ``"glow"``, ``"pixel_art"``, ``"bold_stroke"``, ``"chemistry"``,
            ``"colored_stencil"``, ``"cosmics"``, ``"cutout"``, ``"editorial"``, ``"cartoon"``,
            ``"doodle_line_art"``, ``"engraving"``, ``"flat_2"``, ``"broken_line"``,
            ``"colored_outline"``, ``"doodle_fill"``, ``"offset_fill"``, ``"pictogram"``,
            ``"emblem_graffiti"``, ``"emblem_pop_art"``, ``"emblem_punk"``, ``"emblem_stamp"``,
            ``"emblem_vintage"``; one that does not belong to the style passes the schema. (A)
        style_id: A string; not beside ``style``; a UUID. (A)
        negative_prompt: A string. (A)
        artistic_level: An integer 0 to 5; in the older capture. (A)
        size: One of ``"1024x1024"``, ``"1024x1280"``, ``"1024x1365"``, ``"1024x1434"``,
            ``"1024x1536"``, ``"1024x1707"``, ``"1024x1820"``, ``"1024x2048"``, ``"1280x1024"``,
            ``"1365x1024"``, ``"1434x1024"``, ``"1536x1024"``, ``"1707x1024"``, ``"1820x1024"``,
            ``"2048x1024"``; default ``"1024x1024"``. (A)
        text_layout: A list of mappings; each with a text and a bbox of 4 points of 2 numbers 0
            to 1. (A)
        controls: A mapping; colors, a list of objects with an rgb of integers 0 to 255, and
            background_color; in the older capture. (A)
        extra: Further members of ``config``.

    Source: job-type page inference-recraft-txt2img-v1; an early client's table of times.
    """
    return _job(
        "inference.recraft.txt2img.v1",
        {
            "prompt": prompt,
            "n": n,
            "style": style,
            "substyle": substyle,
            "style_id": style_id,
            "negative_prompt": negative_prompt,
            "artistic_level": artistic_level,
            "size": size,
            "text_layout": text_layout,
            "controls": controls,
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
    Ask for a picture from pictures and a prompt.

    The type is ``inference.recraft.img2img.v1``. Takes 1 input (A).

    Args:
        prompt: A string of 1 to 1000 characters. (A)
        image: The name of an input; without it, the input that is sent. (A)
        negative_prompt: A string. (A)
        strength: A number 0 to 1; default ``0``; 0 leaves the picture nearly as it is. (A)
        style_id: A string; not beside ``style``; a UUID. (A)
        style: One of ``"realistic_image"``, ``"digital_illustration"``,
            ``"vector_illustration"``, ``"icon"``, ``"logo_raster"``; default
            ``"realistic_image"``. (A)
        substyle: A string; one of many, for instance b_and_w, hdr, natural_light,
            studio_portrait, 2d_art_poster, pixel_art, 80s. (A)
        extra: Further members of ``config``.

    Source: job-type page inference-recraft-img2img-v1; guide "Combining Multiple Images".
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


def recraft_v4_txt2img(
    prompt: str,
    *,
    size: Literal[
        "1024x1024",
        "1536x768",
        "768x1536",
        "1280x832",
        "832x1280",
        "1216x896",
        "896x1216",
        "1152x896",
        "896x1152",
        "832x1344",
        "1280x896",
        "896x1280",
        "1344x768",
        "768x1344",
    ]
    | None = None,
    text_layout: Sequence[Mapping[str, Any]] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture from a prompt.

    The type is ``inference.recraft.v4.txt2img.v1``. Has no seed; an empty prompt is allowed.

    Args:
        prompt: A string of at most 10000 characters. (A)
        size: One of ``"1024x1024"``, ``"1536x768"``, ``"768x1536"``, ``"1280x832"``,
            ``"832x1280"``, ``"1216x896"``, ``"896x1216"``, ``"1152x896"``, ``"896x1152"``,
            ``"832x1344"``, ``"1280x896"``, ``"896x1280"``, ``"1344x768"``, ``"768x1344"``;
            default ``"1024x1024"``. (A)
        text_layout: A list of mappings; each with a text and a bbox of 4 points of 2 numbers 0
            to 1. (A)
        extra: Further members of ``config``.

    Source: job-type page inference-recraft-v4-txt2img-v1.
    """
    return _job(
        "inference.recraft.v4.txt2img.v1",
        {"prompt": prompt, "size": size, "text_layout": text_layout},
        extra,
    )


def recraft_v4_pro_txt2img(
    prompt: str,
    *,
    size: Literal[
        "2048x2048",
        "3072x1536",
        "1536x3072",
        "2560x1664",
        "1664x2560",
        "2432x1792",
        "1792x2432",
        "2304x1792",
        "1792x2304",
        "1664x2688",
        "2560x1792",
        "1792x2560",
        "2688x1536",
        "1536x2688",
    ]
    | None = None,
    text_layout: Sequence[Mapping[str, Any]] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture from a prompt.

    The type is ``inference.recraft.v4.pro.txt2img.v1``. Has no seed; an empty prompt is
    allowed.

    Args:
        prompt: A string of at most 10000 characters. (A)
        size: One of ``"2048x2048"``, ``"3072x1536"``, ``"1536x3072"``, ``"2560x1664"``,
            ``"1664x2560"``, ``"2432x1792"``, ``"1792x2432"``, ``"2304x1792"``, ``"1792x2304"``,
            ``"1664x2688"``, ``"2560x1792"``, ``"1792x2560"``, ``"2688x1536"``, ``"1536x2688"``;
            default ``"2048x2048"``. (A)
        text_layout: A list of mappings; each with a text and a bbox of 4 points of 2 numbers 0
            to 1. (A)
        extra: Further members of ``config``.

    Source: job-type page inference-recraft-v4-pro-txt2img-v1.
    """
    return _job(
        "inference.recraft.v4.pro.txt2img.v1",
        {"prompt": prompt, "size": size, "text_layout": text_layout},
        extra,
    )


def recraft_v4_txt2vec(
    prompt: str,
    *,
    size: str | None = None,
    controls: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a vector drawing from a prompt.

    The type is ``inference.recraft.v4.txt2vec.v1``. About 28 s (A).

    Args:
        prompt: A string. (A)
        size: One of ``"1024x1024"``, ``"1536x768"``, ``"768x1536"``, ``"1280x832"``,
            ``"832x1280"``, ``"1216x896"``, ``"896x1216"``, ``"1152x896"``, ``"896x1152"``,
            ``"832x1344"``, ``"1280x896"``, ``"896x1280"``, ``"1344x768"``, ``"768x1344"``; the
            guide says up to 1536x768; the list is that of txt2img. (I)
        controls: A mapping; the palette. (A)
        extra: Further members of ``config``.

    Source: guide "Vectorizing Images"; model page recraft-v4.
    """
    return _job(
        "inference.recraft.v4.txt2vec.v1",
        {"prompt": prompt, "size": size, "controls": controls},
        extra,
    )


def recraft_v4_pro_txt2vec(
    prompt: str,
    *,
    size: str | None = None,
    controls: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a vector drawing from a prompt.

    The type is ``inference.recraft.v4.pro.txt2vec.v1``. About 45 s (A).

    Args:
        prompt: A string. (A)
        size: One of ``"2048x2048"``, ``"3072x1536"``, ``"1536x3072"``, ``"2560x1664"``,
            ``"1664x2560"``, ``"2432x1792"``, ``"1792x2432"``, ``"2304x1792"``, ``"1792x2304"``,
            ``"1664x2688"``, ``"2560x1792"``, ``"1792x2560"``, ``"2688x1536"``, ``"1536x2688"``;
            the guide says up to 3072x1536; the list is that of txt2img. (I)
        controls: A mapping; the palette. (A)
        extra: Further members of ``config``.

    Source: guide "Vectorizing Images"; model page recraft-v4.
    """
    return _job(
        "inference.recraft.v4.pro.txt2vec.v1",
        {"prompt": prompt, "size": size, "controls": controls},
        extra,
    )


def upscale(
    *,
    image: str | None = None,
    upscale: Literal[2, 4, 8] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture, larger.

    The type is ``inference.upscale.v1``. Takes 1 input (I). About 0.73-1.3 s (B). About
    $0.001-0.003 (B). R-ESRGAN; $0.001, $0.002 and $0.003 for 2, 4 and 8 times.

    Args:
        image: The name of an input; without it, the input that is sent. (B)
        upscale: One of ``2``, ``4``, ``8``. (B)
        extra: Further members of ``config``.

    Source: a third-party client that says it tested it live; a recorded live result.
    """
    return _job("inference.upscale.v1", {"image": image, "upscale": upscale}, extra)


def hypir_upscale(*, prompt: str | None = None, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask for a picture, larger.

    The type is ``inference.hypir.upscale.v1``. Takes 1 input (I). One client found it unknown
    to the service in August 2026; two prices are claimed.

    Args:
        prompt: A string. (C)
        extra: Further members of ``config``.

    Source: names seen in clients and listings; third-party clients.
    """
    return _job("inference.hypir.upscale.v1", {"prompt": prompt}, extra)


def remove_background(
    *,
    image: str | None = None,
    contour: bool | None = None,
    contour_tolerance: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a picture without its background.

    The type is ``inference.remove-background.v1``. Takes 1 input (B). About 0.19-1.71 s (B).
    About $0.0025 (B). Needs no config at all.

    Args:
        image: The name of an input; without it, the input that is sent. (I)
        contour: True or False. (C)
        contour_tolerance: An integer. (C)
        extra: Further members of ``config``.

    Source: a third-party client that says it tested it live; third-party clients; a third-party
    client that quotes the model page.
    """
    return _job(
        "inference.remove-background.v1",
        {"image": image, "contour": contour, "contour_tolerance": contour_tolerance},
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
    Ask for masks of what is in a picture.

    The type is ``inference.birefnet.segment.v1``. Takes 1 input (I). About $0.0025 (B).

    Args:
        image: The name of an input; without it, the input that is sent. (B)
        contour: True or False. (B)
        contour_tolerance: An integer 0 to 255. (B)
        extra: Further members of ``config``.

    Source: a third-party client that says it tested it live.
    """
    return _job(
        "inference.birefnet.segment.v1",
        {"image": image, "contour": contour, "contour_tolerance": contour_tolerance},
        extra,
    )


def sam3_segment(
    prompt: str,
    *,
    confidence_threshold: float | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for masks of what is in a picture.

    The type is ``inference.sam3.segment.v1``. Takes 1 input: 256x256 to 4096x4096 pixels, 10 MB
    at most (A). About 0.088 s (A). About $0.0011 (C).

    Args:
        prompt: A string of 1 to 500 characters. (A)
        confidence_threshold: A number 0 to 1; default ``0.5``; 0.3 finds many, 0.9 only what is
            sure. (A)
        extra: Further members of ``config``.

    Source: job-type page inference-sam3-segment-v1; third-party clients.
    """
    return _job(
        "inference.sam3.segment.v1",
        {"prompt": prompt, "confidence_threshold": confidence_threshold},
        extra,
    )


def vit_img2label(*, model: str | None = None, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask for labels for a picture.

    The type is ``inference.vit.img2label.v2``. Takes 1 input (I). The labels are in the
    result's config too.

    Args:
        model: One of ``"google/vit-base-patch16-224-in21k"``,
            ``"Falconsai/nsfw_image_detection"``. (C)
        extra: Further members of ``config``.

    Source: third-party clients.
    """
    return _job("inference.vit.img2label.v2", {"model": model}, extra)


def facerestore(*, upscale: int | None = None, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask for a picture with its faces restored.

    The type is ``inference.facerestore.v1``. Takes 1 input (I). About 2 s (C). About $0.0008
    (C).

    Args:
        upscale: An integer; 1 was used. (C)
        extra: Further members of ``config``.

    Source: third-party clients; an early client's table of times.
    """
    return _job("inference.facerestore.v1", {"upscale": upscale}, extra)


def veo_txt2vid_v1(
    prompt: str,
    *,
    resolution: str | None = "720p",
    aspect_ratio: str | None = None,
    generate_audio: bool | None = None,
    seed: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a video from a prompt.

    The type is ``inference.veo.txt2vid.v1``. About 90 s (A).

    Args:
        prompt: A string. (I)
        resolution: One of ``"720p"``, ``"1080p"``; always to be sent: read strictly, the schema
            of img2vid refuses a job without it. (I)
        aspect_ratio: One of ``"16:9"``, ``"9:16"``. (I)
        generate_audio: True or False; default ``False``. (I)
        seed: An integer. (I)
        extra: Further members of ``config``.

    Source: model page veo.
    """
    return _job(
        "inference.veo.txt2vid.v1",
        {
            "prompt": prompt,
            "resolution": resolution,
            "aspect_ratio": aspect_ratio,
            "generate_audio": generate_audio,
            "seed": seed,
        },
        extra,
    )


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
    Ask for a video from a prompt.

    The type is ``inference.veo.txt2vid.v2``. About 90 s (A).

    Args:
        prompt: A string. (I)
        resolution: One of ``"720p"``, ``"1080p"``. (C)
        aspect_ratio: One of ``"16:9"``, ``"9:16"``. (C)
        duration_seconds: One of ``4``, ``6``, ``8``. (C)
        negative_prompt: A string. (I)
        generate_audio: True or False. (C)
        extra: Further members of ``config``.

    Source: model page veo; third-party clients.
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


def veo_img2vid_v1(
    prompt: str,
    *,
    image: str | None = None,
    generate_audio: bool | None = None,
    seed: int | None = None,
    resolution: Literal["720p", "1080p"] | None = "720p",
    aspect_ratio: Literal["16:9", "9:16"] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a video from a picture.

    The type is ``inference.veo.img2vid.v1``. Takes 0 or more inputs. About 90 s (A). Has no
    duration, negative prompt or last frame.

    Args:
        prompt: A string of at most 2500 characters. (A)
        image: The name of an input; without it, the input that is sent. (A)
        generate_audio: True or False; default ``False``. (A)
        seed: An integer. (A)
        resolution: One of ``"720p"``, ``"1080p"``; always to be sent: read strictly, the schema
            refuses a job without it. (A)
        aspect_ratio: One of ``"16:9"``, ``"9:16"``; 9:16 with 720p only. (A)
        extra: Further members of ``config``.

    Source: job-type page inference-veo-img2vid-v1; model page veo.
    """
    return _job(
        "inference.veo.img2vid.v1",
        {
            "prompt": prompt,
            "image": image,
            "generate_audio": generate_audio,
            "seed": seed,
            "resolution": resolution,
            "aspect_ratio": aspect_ratio,
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
    Ask for a video from a picture.

    The type is ``inference.veo.img2vid.v2``. Takes 1 or more inputs. About 90 s (A).

    Args:
        prompt: A string. (I)
        last_frame: The name of an input; the picture to end with. (I)
        resolution: One of ``"720p"``, ``"1080p"``. (C)
        aspect_ratio: One of ``"16:9"``, ``"9:16"``. (C)
        duration_seconds: One of ``4``, ``6``, ``8``. (C)
        negative_prompt: A string. (I)
        generate_audio: True or False. (C)
        extra: Further members of ``config``.

    Source: model page veo; third-party clients.
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


def veo_fast_txt2vid_v1(
    prompt: str,
    *,
    resolution: str | None = "720p",
    aspect_ratio: str | None = None,
    generate_audio: bool | None = None,
    seed: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a video from a prompt.

    The type is ``inference.veo.fast.txt2vid.v1``. About 60 s (A).

    Args:
        prompt: A string. (I)
        resolution: One of ``"720p"``, ``"1080p"``; always to be sent: read strictly, the schema
            of img2vid refuses a job without it. (I)
        aspect_ratio: One of ``"16:9"``, ``"9:16"``. (I)
        generate_audio: True or False; default ``False``. (I)
        seed: An integer. (I)
        extra: Further members of ``config``.

    Source: model page veo.
    """
    return _job(
        "inference.veo.fast.txt2vid.v1",
        {
            "prompt": prompt,
            "resolution": resolution,
            "aspect_ratio": aspect_ratio,
            "generate_audio": generate_audio,
            "seed": seed,
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
    Ask for a video from a prompt.

    The type is ``inference.veo.fast.txt2vid.v2``. About 60 s (A).

    Args:
        prompt: A string. (I)
        resolution: One of ``"720p"``, ``"1080p"``. (C)
        aspect_ratio: One of ``"16:9"``, ``"9:16"``. (C)
        duration_seconds: One of ``4``, ``6``, ``8``. (C)
        negative_prompt: A string. (I)
        generate_audio: True or False. (C)
        extra: Further members of ``config``.

    Source: model page veo; third-party clients.
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
    resolution: str | None = "720p",
    aspect_ratio: str | None = None,
    generate_audio: bool | None = None,
    seed: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a video from a picture.

    The type is ``inference.veo.fast.img2vid.v1``. Takes 1 or more inputs. About 60 s (A).

    Args:
        prompt: A string. (I)
        resolution: One of ``"720p"``, ``"1080p"``; always to be sent: read strictly, the schema
            of img2vid refuses a job without it. (I)
        aspect_ratio: One of ``"16:9"``, ``"9:16"``. (I)
        generate_audio: True or False; default ``False``. (I)
        seed: An integer. (I)
        extra: Further members of ``config``.

    Source: model page veo.
    """
    return _job(
        "inference.veo.fast.img2vid.v1",
        {
            "prompt": prompt,
            "resolution": resolution,
            "aspect_ratio": aspect_ratio,
            "generate_audio": generate_audio,
            "seed": seed,
        },
        extra,
    )


def sora_2_txt2vid(
    prompt: str,
    *,
    aspect_ratio: str | None = None,
    duration: Literal[4, 8, 12] | None = None,
    seed: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a video from a prompt.

    The type is ``inference.sora-2.txt2vid.v1``. 720p, without sound.

    Args:
        prompt: A string. (I)
        aspect_ratio: One of ``"9:16"``, ``"16:9"``; default ``"16:9"``. (I)
        duration: One of ``4``, ``8``, ``12``; default ``4``; seconds. (A)
        seed: An integer 1 to 2147483647. (I)
        extra: Further members of ``config``.

    Source: model page sora-2.
    """
    return _job(
        "inference.sora-2.txt2vid.v1",
        {"prompt": prompt, "aspect_ratio": aspect_ratio, "duration": duration, "seed": seed},
        extra,
    )


def sora_2_img2vid(
    prompt: str,
    *,
    aspect_ratio: str | None = None,
    duration: Literal[4, 8, 12] | None = None,
    seed: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a video from a picture.

    The type is ``inference.sora-2.img2vid.v1``. Takes 1 or more inputs. 720p, without sound;
    the model page says that it takes a picture, the name is by analogy.

    Args:
        prompt: A string. (I)
        aspect_ratio: One of ``"9:16"``, ``"16:9"``; default ``"16:9"``. (I)
        duration: One of ``4``, ``8``, ``12``; default ``4``; seconds. (A)
        seed: An integer 1 to 2147483647. (I)
        extra: Further members of ``config``.

    Source: model page sora-2.
    """
    return _job(
        "inference.sora-2.img2vid.v1",
        {"prompt": prompt, "aspect_ratio": aspect_ratio, "duration": duration, "seed": seed},
        extra,
    )


def sora_2_pro_txt2vid(
    prompt: str,
    *,
    resolution: Literal["720p", "1080p"] | None = None,
    aspect_ratio: str | None = None,
    duration: Literal[4, 8, 12] | None = None,
    seed: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a video from a prompt.

    The type is ``inference.sora-2.pro.txt2vid.v1``. Always with sound.

    Args:
        prompt: A string. (I)
        resolution: One of ``"720p"``, ``"1080p"``; default ``"720p"``. (A)
        aspect_ratio: One of ``"9:16"``, ``"16:9"``; default ``"16:9"``. (I)
        duration: One of ``4``, ``8``, ``12``; default ``4``; seconds. (A)
        seed: An integer 1 to 2147483647. (I)
        extra: Further members of ``config``.

    Source: model page sora-2.
    """
    return _job(
        "inference.sora-2.pro.txt2vid.v1",
        {
            "prompt": prompt,
            "resolution": resolution,
            "aspect_ratio": aspect_ratio,
            "duration": duration,
            "seed": seed,
        },
        extra,
    )


def sora_2_pro_img2vid(
    prompt: str,
    *,
    image: str | None = None,
    resolution: Literal["720p", "1080p"] | None = None,
    aspect_ratio: Literal["9:16", "16:9"] | None = None,
    duration: Literal[4, 8, 12] | None = None,
    seed: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a video from a picture.

    The type is ``inference.sora-2.pro.img2vid.v1``. Takes 0 to 1 input: the picture is optional
    in the schema (I). Always with sound.

    Args:
        prompt: A string of 3 to 4096 characters. (A)
        image: The name of an input; without it, the input that is sent. (A)
        resolution: One of ``"720p"``, ``"1080p"``; default ``"720p"``. (A)
        aspect_ratio: One of ``"9:16"``, ``"16:9"``; default ``"16:9"``. (A)
        duration: One of ``4``, ``8``, ``12``; default ``4``; seconds. (A)
        seed: An integer 1 to 2147483647; 0 is refused. (A)
        extra: Further members of ``config``.

    Source: job-type page inference-sora-2-pro-img2vid-v1.
    """
    return _job(
        "inference.sora-2.pro.img2vid.v1",
        {
            "prompt": prompt,
            "image": image,
            "resolution": resolution,
            "aspect_ratio": aspect_ratio,
            "duration": duration,
            "seed": seed,
        },
        extra,
    )


def wan2_2_lightning_txt2vid(
    prompt: str,
    *,
    resolution: Literal["480p", "720p"] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a video from a prompt.

    The type is ``inference.wan2-2.lightning.txt2vid.v0``. About 22 s (B). 720p, without sound.

    Args:
        prompt: A string. (I)
        resolution: One of ``"480p"``, ``"720p"``; one client says 720p alone. (B)
        extra: Further members of ``config``.

    Source: names seen in clients and listings; option schema of @ai-sdk/prodia; a third-party
    client that quotes the model page.
    """
    return _job(
        "inference.wan2-2.lightning.txt2vid.v0", {"prompt": prompt, "resolution": resolution}, extra
    )


def wan2_2_lightning_img2vid(
    prompt: str,
    *,
    resolution: Literal["480p", "720p"] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a video from a picture.

    The type is ``inference.wan2-2.lightning.img2vid.v0``. Takes 1 or more inputs. About 22 s
    (B). 720p, without sound or control of frames.

    Args:
        prompt: A string. (I)
        resolution: One of ``"480p"``, ``"720p"``; one client says 720p alone. (B)
        extra: Further members of ``config``.

    Source: names seen in clients and listings; option schema of @ai-sdk/prodia; a third-party
    client that quotes the model page.
    """
    return _job(
        "inference.wan2-2.lightning.img2vid.v0", {"prompt": prompt, "resolution": resolution}, extra
    )


def wan2_7_txt2vid(
    prompt: str,
    *,
    ratio: str | None = None,
    negative_prompt: str | None = None,
    resolution: Literal["720P", "1080P"] | None = None,
    duration: int | None = None,
    prompt_extend: bool | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a video from a prompt.

    The type is ``inference.wan2-7.txt2vid.v1``. About 200 s (B). About $0.03 (B).

    Args:
        prompt: A string of at most 5000 characters. (I)
        ratio: A string; for this type alone. (B)
        negative_prompt: A string of at most 500 characters. (B)
        resolution: One of ``"720P"``, ``"1080P"``; with a capital P. (B)
        duration: An integer 2 to 15; seconds. (B)
        prompt_extend: True or False; default ``True``. (B)
        extra: Further members of ``config``.

    Source: a third-party client that quotes the model page; a third-party client that says it
    tested it live.
    """
    return _job(
        "inference.wan2-7.txt2vid.v1",
        {
            "prompt": prompt,
            "ratio": ratio,
            "negative_prompt": negative_prompt,
            "resolution": resolution,
            "duration": duration,
            "prompt_extend": prompt_extend,
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
    Ask for a video from a picture.

    The type is ``inference.wan2-7.img2vid.v1``. Takes 1 to 3 inputs (I). About 17-400 s (B).
    About $0.03 (B). The price is the same for 2 and for 15 seconds.

    Args:
        prompt: A string of at most 5000 characters. (B)
        image: The name of an input; the picture to start with. (B)
        last_frame: The name of an input; the picture to end with. (B)
        audio: The name of an input; WAV or MP3, 2 to 30 s, 15 MB at most. (B)
        negative_prompt: A string of at most 500 characters. (B)
        resolution: One of ``"720P"``, ``"1080P"``; with a capital P. (B)
        duration: An integer 2 to 15; seconds. (B)
        prompt_extend: True or False; default ``True``. (B)
        extra: Further members of ``config``.

    Source: a recorded live result; a third-party client that quotes the model page; a
    third-party client that says it tested it live.
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


def wan2_7_vid2vid(prompt: str, *, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask for a video from a video.

    The type is ``inference.wan2-7.vid2vid.v1``. Takes 1 or more inputs. About 200 s (B). Goes
    on with a film.

    Args:
        prompt: A string. (I)
        extra: Further members of ``config``.

    Source: a third-party client that quotes the model page.
    """
    return _job("inference.wan2-7.vid2vid.v1", {"prompt": prompt}, extra)


def seedance_lite_txt2vid(prompt: str, *, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask for a video from a prompt.

    The type is ``inference.seedance.lite.txt2vid.v1``.

    Args:
        prompt: A string. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings.
    """
    return _job("inference.seedance.lite.txt2vid.v1", {"prompt": prompt}, extra)


def seedance_lite_img2vid(prompt: str, *, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask for a video from a picture.

    The type is ``inference.seedance.lite.img2vid.v1``. Takes 1 input (A).

    Args:
        prompt: A string. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings; guide "Combining Multiple Images".
    """
    return _job("inference.seedance.lite.img2vid.v1", {"prompt": prompt}, extra)


def seedance_pro_txt2vid(prompt: str, *, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask for a video from a prompt.

    The type is ``inference.seedance.pro.txt2vid.v1``.

    Args:
        prompt: A string. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings.
    """
    return _job("inference.seedance.pro.txt2vid.v1", {"prompt": prompt}, extra)


def seedance_pro_img2vid(prompt: str, *, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask for a video from a picture.

    The type is ``inference.seedance.pro.img2vid.v1``. Takes 1 input (A).

    Args:
        prompt: A string. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings; guide "Combining Multiple Images".
    """
    return _job("inference.seedance.pro.img2vid.v1", {"prompt": prompt}, extra)


def seedance_proturbo_txt2vid(prompt: str, *, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask for a video from a prompt.

    The type is ``inference.seedance.proturbo.txt2vid.v1``.

    Args:
        prompt: A string. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings.
    """
    return _job("inference.seedance.proturbo.txt2vid.v1", {"prompt": prompt}, extra)


def kling_txt2vid(
    prompt: str,
    *,
    negative_prompt: str | None = None,
    cfg_scale: float | None = None,
    duration: int | None = None,
    model_name: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a video from a prompt.

    The type is ``inference.kling.txt2vid.v1``. About 300 s (C). The model page has the versions
    kling-v1, kling-v1-6, kling-v2-master, kling-v2-1 and kling-v2-1-master, and presets for the
    camera (simple, down_back, forward_up, right_turn_forward).

    Args:
        prompt: A string. (I)
        negative_prompt: A string. (C)
        cfg_scale: A number. (C)
        duration: An integer; seconds. (C)
        model_name: One of ``"kling-v1"``, ``"kling-v1-6"``, ``"kling-v2-master"``,
            ``"kling-v2-1"``, ``"kling-v2-1-master"``. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings; an early client's table of times.
    """
    return _job(
        "inference.kling.txt2vid.v1",
        {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "cfg_scale": cfg_scale,
            "duration": duration,
            "model_name": model_name,
        },
        extra,
    )


def runway_gen4_vid2vid(
    prompt: str,
    *,
    video: str | None = None,
    aspect_ratio: str | None = None,
    public_figure_moderation: str | None = None,
    seed: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a video from a video.

    The type is ``inference.runway.gen4.vid2vid.v1``. Takes 1 or more inputs.

    Args:
        prompt: A string. (I)
        video: The name of an input. (C)
        aspect_ratio: One of ``"1280:720"``, ``"720:1280"``, ``"1104:832"``, ``"832:1104"``,
            ``"960:960"``, ``"1584:672"``. (C)
        public_figure_moderation: A string; "auto" was used. (C)
        seed: An integer. (C)
        extra: Further members of ``config``.

    Source: third-party clients.
    """
    return _job(
        "inference.runway.gen4.vid2vid.v1",
        {
            "prompt": prompt,
            "video": video,
            "aspect_ratio": aspect_ratio,
            "public_figure_moderation": public_figure_moderation,
            "seed": seed,
        },
        extra,
    )


def pruna_p_video_txt2vid(prompt: str, *, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask for a video from a prompt.

    The type is ``inference.pruna.p-video.txt2vid.v1``.

    Args:
        prompt: A string. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings.
    """
    return _job("inference.pruna.p-video.txt2vid.v1", {"prompt": prompt}, extra)


def pruna_p_video_img2vid(prompt: str, *, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask for a video from a picture.

    The type is ``inference.pruna.p-video.img2vid.v1``. Takes 1 or more inputs.

    Args:
        prompt: A string. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings.
    """
    return _job("inference.pruna.p-video.img2vid.v1", {"prompt": prompt}, extra)


def pruna_p_video_aud2vid(
    prompt: str,
    *,
    audio: str | None = None,
    resolution: str | None = None,
    aspect_ratio: str | None = None,
    fps: int | None = None,
    prompt_upsampling: bool | None = None,
    seed: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a video to a sound.

    The type is ``inference.pruna.p-video.aud2vid.v1``. Takes 1 or more inputs.

    Args:
        prompt: A string. (I)
        audio: The name of an input. (C)
        resolution: One of ``"720p"``, ``"1080p"``. (C)
        aspect_ratio: One of ``"16:9"``, ``"9:16"``, ``"4:3"``, ``"3:4"``, ``"3:2"``, ``"2:3"``,
            ``"1:1"``. (C)
        fps: An integer; 24 was used. (C)
        prompt_upsampling: True or False. (C)
        seed: An integer. (C)
        extra: Further members of ``config``.

    Source: third-party clients.
    """
    return _job(
        "inference.pruna.p-video.aud2vid.v1",
        {
            "prompt": prompt,
            "audio": audio,
            "resolution": resolution,
            "aspect_ratio": aspect_ratio,
            "fps": fps,
            "prompt_upsampling": prompt_upsampling,
            "seed": seed,
        },
        extra,
    )


def minimax_h3_fast_txt2vid(
    prompt: str,
    *,
    aspect_ratio: str | None = None,
    duration: int | None = None,
    resolution: str | None = None,
    seed: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a video from a prompt.

    The type is ``inference.minimax.h3.fast.txt2vid.v1``. 24 frames a second, always with sound.

    Args:
        prompt: A string. (B)
        aspect_ratio: A string; not "adaptive". (B)
        duration: An integer; seconds; 4, 8 and 15 were used. (B)
        resolution: A string; "768P" was used. (B)
        seed: An integer; 0 is a seed too. (B)
        extra: Further members of ``config``.

    Source: tests of @ai-sdk/prodia.
    """
    return _job(
        "inference.minimax.h3.fast.txt2vid.v1",
        {
            "prompt": prompt,
            "aspect_ratio": aspect_ratio,
            "duration": duration,
            "resolution": resolution,
            "seed": seed,
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
    Ask for a video from a picture.

    The type is ``inference.minimax.h3.fast.img2vid.v1``. Takes 1 to 2 inputs (B). 24 frames a
    second, always with sound; takes no aspect_ratio.

    Args:
        prompt: A string. (B)
        first_frame: The name of an input; the picture to start with. (B)
        last_frame: The name of an input; the picture to end with. (B)
        duration: An integer; seconds; 4, 8 and 15 were used. (B)
        resolution: A string; "768P" was used. (B)
        seed: An integer; 0 is a seed too. (B)
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
    aspect_ratio: str | None = None,
    duration: int | None = None,
    resolution: str | None = None,
    seed: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """
    Ask for a video from references.

    The type is ``inference.minimax.h3.fast.ref2vid.v1``. Takes 1 to 12 inputs (B). 24 frames a
    second, always with sound.

    Args:
        prompt: A string. (B)
        references: A list of names of inputs, 1 to 12 of them; in order; at most 9 pictures, 3
            videos and 3 sounds, and not sounds alone. (B)
        aspect_ratio: A string; not "adaptive". (B)
        duration: An integer; seconds; 4, 8 and 15 were used. (B)
        resolution: A string; "768P" was used. (B)
        seed: An integer; 0 is a seed too. (B)
        extra: Further members of ``config``.

    Source: tests of @ai-sdk/prodia.
    """
    return _job(
        "inference.minimax.h3.fast.ref2vid.v1",
        {
            "prompt": prompt,
            "references": references,
            "aspect_ratio": aspect_ratio,
            "duration": duration,
            "resolution": resolution,
            "seed": seed,
        },
        extra,
    )


def mochi1_txt2vid(prompt: str, *, extra: Mapping[str, Any] | None = None) -> Job:
    """
    Ask for a video from a prompt.

    The type is ``inference.mochi1.txt2vid.v1``. About 75 s (C). Old.

    Args:
        prompt: A string. (I)
        extra: Further members of ``config``.

    Source: names seen in clients and listings; an early client's table of times.
    """
    return _job("inference.mochi1.txt2vid.v1", {"prompt": prompt}, extra)


def _job(name: str, config: dict[str, Any], extra: Mapping[str, Any] | None) -> Job:
    given = {field: value for field, value in config.items() if value is not None}
    return Job(name, {**given, **(extra or {})})
