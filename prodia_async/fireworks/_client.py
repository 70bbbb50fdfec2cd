"""``AsyncFireworks``: the vocabulary of the Fireworks image API over the engine."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, get_args

from .. import _waiting
from .._attempts import Timing
from .._checks import seconds as check_seconds
from .._wire import MAX_RESPONSE_BYTES
from ._answers import ImageOutcome, ImageResponse
from ._edits import SDXL, CannyEdgeDetection, ControlNet, ImageToImage, Mode, Order, QRCode
from ._orders import (
    FLUX_SCHNELL,
    KONTEXT_PRO,
    POLL_SECONDS,
    Generate,
    ImageType,
    Kontext,
    TextToImage,
    accept_headers,
    check_model,
    check_task_id,
)
from ._running import ClientOptions, OrderLike, Runner

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterable, Callable, Iterable, Mapping

    import httpx

    from .._base import TokenSource
    from .._formats import Format
    from .._hooks import AttemptHook
    from .._map import Outcomes
    from .._models import InputLike
    from .._progress import MapProgress
    from .._retry import RetryPolicy


class Options(TypedDict, total=False):
    """What `AsyncFireworks.with_options` may change."""

    api_key: TokenSource
    retry: RetryPolicy
    timeout: float
    deadline: float | None
    hook: AttemptHook | None
    accept: Format | str | None
    extra_headers: Mapping[str, str] | None
    max_queued: int | None
    cache: str | os.PathLike[str] | None


class EditOptions(TypedDict, total=False):
    """What `AsyncFireworks.image_to_image` and `control_net` take beside their own arguments."""

    model: str
    negative_prompt: str | None
    width: int | None
    height: int | None
    cfg_scale: float | None
    sampler: str | None
    steps: int | None
    seed: int | None
    samples: int
    safety_check: bool | None
    style_preset: str | None
    lora_adapter_name: str | None
    lora_weight_filename: str | None
    apply_invisible_watermark: bool | None
    crop_padding: bool | None
    step_schedule_start: float | None
    step_schedule_end: float | None
    accept: Format | str | None
    jpeg_quality: int | None
    json_image: ImageType | None
    raise_if_filtered: bool
    deadline: float | None
    extra_body: Mapping[str, Any] | None


class AsyncFireworks(Runner):
    """
    Makes pictures on the Fireworks image API.

    It works as `AsyncProdia` does, over the same engine: one client is meant
    to be shared by everything in a program, building it does no I/O, it
    learns how much the server can take, and it never pays twice unasked.
    Refusals for lack of capacity are 429 and 503 here. The totals in
    `statistics` count `dollars` by `estimate`, since no answer tells them.

    Args:
        api_key: The API key, or a function that returns one, awaited for
            each attempt. By default the environment variable FIREWORKS_API_KEY.
        base_url: By default the environment variable FIREWORKS_API_BASE, else
            ``https://api.fireworks.ai/inference/v1``.
        max_concurrency: The most requests in flight at once. Chosen.
        adaptive: Learn below that bound how many pictures of each model the
            server takes, from its refusals. With ``False`` the bound is fixed.
        retry: When to try again; `RetryPolicy()` by default.
        timeout: Seconds of silence on the wire allowed within one attempt, and
            seconds a Kontext task may take once it is submitted. Chosen.
        connect_timeout: Seconds a connection may take, TLS included. Chosen.
        deadline: Seconds for one picture in all: queue, waits, every attempt,
            upload and download. By default none.
        transport: An httpx transport to use instead of our own; closed with
            the client. It then belongs to one event loop.
        http_client: A client of your own to send through; never closed here.
        allow_http: Allow plain http to a host that is not this machine. The
            key then travels where anybody can read it.
        max_response_bytes: The most that is collected in memory for one
            answer. Chosen: 1 GiB.
        hook: A function to be told of every job and attempt; see `AttemptHook`.
        accept: The form of answer for requests that name none, where they
            make one picture; Kontext has an `output_format` of its own.
        extra_headers: Further headers for every request to the service.
        max_queued: How many requests may wait for a slot. One more ends at
            once in a `QueueFullError`, and nothing is sent. By default any
            number may wait. Those of a `map` never count.
        cache: A folder that keeps answers. What has a seed of your own and
            was asked before is answered from it: ``response.cached`` is true
            then, and nothing is sent or charged. Several processes may share it.

    Raises:
        InvalidRequestError: No key was found, or an argument is out of its range.
    """

    def __init__(
        self,
        api_key: TokenSource | None = None,
        *,
        base_url: str | None = None,
        max_concurrency: int = 64,
        adaptive: bool = True,
        retry: RetryPolicy | None = None,
        timeout: float = 600.0,
        connect_timeout: float = 10.0,
        deadline: float | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        http_client: httpx.AsyncClient | None = None,
        allow_http: bool = False,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
        hook: AttemptHook | None = None,
        accept: Format | str | None = None,
        extra_headers: Mapping[str, str] | None = None,
        max_queued: int | None = None,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(
            base_url=base_url,
            max_concurrency=max_concurrency,
            adaptive=adaptive,
            connect_timeout=connect_timeout,
            transport=transport,
            http_client=http_client,
            allow_http=allow_http,
            max_response_bytes=max_response_bytes,
        )
        self._set_options(
            ClientOptions(
                api_key=api_key,
                retry=retry,
                timeout=timeout,
                deadline=deadline,
                hook=hook,
                accept=accept,
                extra_headers=extra_headers,
                max_queued=max_queued,
                cache=cache,
            )
        )

    def with_options(self, **overrides: Unpack[Options]) -> AsyncFireworks:
        """
        Return a view of this client with other defaults.

        It shares connections, scheduler and totals, so it is light, and
        closing either closes both.

        Args:
            overrides: `api_key`, `retry`, `timeout`, `deadline`, `hook`, `accept`,
                `extra_headers`, `max_queued` or `cache`, as the client takes them.

        Raises:
            InvalidRequestError: Another option was given, or one is out of its range.
        """
        return self._view(overrides)

    async def run(self, request: OrderLike) -> ImageResponse:
        """
        Make the pictures of one request of any kind.

        Args:
            request: A `TextToImage`, `Generate` or `Kontext`, or a prompt.

        Returns:
            As the method of that kind does.

        Raises:
            InvalidRequestError: It is none of them.
            ProdiaError: As the method of that kind does.
        """
        return await self._run(TextToImage(request) if isinstance(request, str) else request)

    async def text_to_image(
        self,
        prompt: str,
        *,
        model: str = FLUX_SCHNELL,
        aspect_ratio: str | None = None,
        guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
        seed: int | None = None,
        safety_check: bool | None = None,
        accept: Format | str | None = None,
        jpeg_quality: int | None = None,
        json_image: ImageType | None = None,
        raise_if_filtered: bool = True,
        deadline: float | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> ImageResponse:
        """
        Make a picture on the workflows endpoint, which serves the FLUX.1 models.

        Args:
            prompt: What to show.
            model: Its name, or ``accounts/.../models/...``.
            aspect_ratio: For instance ``16:9``; ``1:1`` by default.
            guidance_scale: How closely to follow the prompt; the service's default is 3.5.
            num_inference_steps: From 1; the service's default for schnell is 4. They are paid.
            seed: From 0; drawn here for ``None`` and 0, and recorded.
            safety_check: Have the service filter what it makes.
            accept: ``image/png`` (the default), ``image/jpeg`` or ``application/json``.
            jpeg_quality: 0 to 100, with ``image/jpeg`` alone.
            json_image: With ``application/json`` alone: the format inside it.
            raise_if_filtered: Whether a filtered picture is an error.
            deadline: Seconds in all; by default the client's.
            extra_body: Further fields of the request; `TextToImage` tells more of each.

        Returns:
            The picture, with the seed it was made from.

        Raises:
            InvalidRequestError: It cannot be sent; nothing was.
            ContentFilteredError: It was filtered; the picture is on the error.
            DeadlineExceededError: The deadline passed.
            APIConnectionError: No complete answer came.
            APIStatusError: The server refused it, or had a fault.
            ResponseError: It ran, but the answer is not what the API promises.
        """
        return await self._run(
            TextToImage(
                prompt,
                model=model,
                aspect_ratio=aspect_ratio,
                guidance_scale=guidance_scale,
                num_inference_steps=num_inference_steps,
                seed=seed,
                safety_check=safety_check,
                accept=accept,
                jpeg_quality=jpeg_quality,
                json_image=json_image,
                raise_if_filtered=raise_if_filtered,
                deadline=deadline,
                extra_body=extra_body,
            )
        )

    async def generate(
        self,
        prompt: str,
        *,
        model: str,
        width: int | None = None,
        height: int | None = None,
        negative_prompt: str | None = None,
        cfg_scale: float | None = None,
        sampler: str | None = None,
        steps: int | None = None,
        seed: int | None = None,
        samples: int = 1,
        safety_check: bool | None = None,
        style_preset: str | None = None,
        lora_adapter_name: str | None = None,
        lora_weight_filename: str | None = None,
        apply_invisible_watermark: bool | None = None,
        accept: Format | str | None = None,
        jpeg_quality: int | None = None,
        json_image: ImageType | None = None,
        raise_if_filtered: bool = True,
        deadline: float | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> ImageResponse:
        """
        Make one picture or several on the older image_generation endpoint (the SDXL models).

        Args:
            prompt: What to show.
            model: Its name, for instance ``stable-diffusion-xl-1024-v1-0``.
            width: Pixels; with `height` one of the nine sizes of SDXL.
            height: As `width`.
            negative_prompt: What not to show.
            cfg_scale: How closely to follow the prompt; by default the model's.
            sampler: ``K_EULER`` or ``K_DPMPP_2M``; by default the model's.
            steps: From 1; by default the model's. They are paid.
            seed: From 0; drawn here for ``None`` and 0, and recorded.
            samples: How many pictures, from 1. Several come as JSON alone.
            safety_check: Have the service filter what it makes; its default is off.
            style_preset: The service documents no list of them.
            lora_adapter_name: A LoRA adapter; needs `lora_weight_filename`.
            lora_weight_filename: Its file.
            apply_invisible_watermark: The service's default is off.
            accept: As `text_to_image` takes it; ``application/json`` by default for several.
            jpeg_quality: 0 to 100, with ``image/jpeg`` alone.
            json_image: With ``application/json`` alone: the format inside it.
            raise_if_filtered: Whether a filtered picture is an error.
            deadline: Seconds in all; by default the client's.
            extra_body: Further fields of the request; `Generate` tells more of each.

        Returns:
            The pictures; with several, the seeds of those that the answer tells.

        Raises:
            ProdiaError: As `text_to_image` does.
        """
        return await self._run(
            Generate(
                prompt,
                model=model,
                width=width,
                height=height,
                negative_prompt=negative_prompt,
                cfg_scale=cfg_scale,
                sampler=sampler,
                steps=steps,
                seed=seed,
                samples=samples,
                safety_check=safety_check,
                style_preset=style_preset,
                lora_adapter_name=lora_adapter_name,
                lora_weight_filename=lora_weight_filename,
                apply_invisible_watermark=apply_invisible_watermark,
                accept=accept,
                jpeg_quality=jpeg_quality,
                json_image=json_image,
                raise_if_filtered=raise_if_filtered,
                deadline=deadline,
                extra_body=extra_body,
            )
        )

    async def image_to_image(
        self,
        prompt: str,
        init_image: InputLike,
        *,
        init_image_mode: Mode | None = None,
        image_strength: float | None = None,
        **options: Unpack[EditOptions],
    ) -> ImageResponse:
        """
        Make a picture from a picture on the older endpoint (the SDXL models).

        Args:
            prompt: As `ImageToImage` takes it, and so are all the others.
            init_image: The picture to start from: whatever may be an input of a Prodia job.
            init_image_mode: ``IMAGE_STRENGTH`` (the default) or ``STEP_SCHEDULE``.
            image_strength: 0 to 1; needed for the first.
            options: The other fields of `ImageToImage`.

        Returns:
            The pictures; with several, the seeds of those that the answer tells.

        Raises:
            ProdiaError: As `text_to_image` does.
        """
        return await self._run(
            ImageToImage(
                prompt,
                init_image,
                init_image_mode=init_image_mode,
                image_strength=image_strength,
                **options,
            )
        )

    async def control_net(
        self,
        prompt: str,
        control_image: InputLike,
        *,
        control_net_name: str,
        conditioning_scale: float | None = None,
        **options: Unpack[EditOptions],
    ) -> ImageResponse:
        """
        Make a picture along the lines of another on the older endpoint (the SDXL models).

        Args:
            prompt: As `ControlNet` takes it, and so are all the others.
            control_image: The lines; `canny_edge_detection` draws some.
            control_net_name: Which network reads them, for instance ``canny``.
            conditioning_scale: How closely to follow them.
            options: The other fields of `ControlNet`.

        Returns:
            The pictures; with several, the seeds of those that the answer tells.

        Raises:
            ProdiaError: As `text_to_image` does.
        """
        return await self._run(
            ControlNet(
                prompt,
                control_image,
                control_net_name=control_net_name,
                conditioning_scale=conditioning_scale,
                **options,
            )
        )

    async def canny_edge_detection(
        self,
        image: InputLike,
        *,
        model: str = SDXL,
        min_val: float | None = None,
        max_val: float | None = None,
        accept: Format | str | None = None,
        deadline: float | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> ImageResponse:
        """
        Find the edges of a picture on the older endpoint, for `control_net`.

        Args:
            image: As `CannyEdgeDetection` takes it, and so are all the others.
            model: An SDXL model.
            min_val: Below this strength there is no edge.
            max_val: Above this strength there is one.
            accept: ``image/png`` (the default) or ``image/jpeg``.
            deadline: As the client's option.
            extra_body: Further fields of the request.

        Returns:
            The edges, as a picture.

        Raises:
            ProdiaError: As `text_to_image` does.
        """
        return await self._run(
            CannyEdgeDetection(
                image,
                model=model,
                min_val=min_val,
                max_val=max_val,
                accept=accept,
                deadline=deadline,
                extra_body=extra_body,
            )
        )

    async def qr_code(
        self,
        prompt: str,
        *,
        model: str = SDXL,
        width: int | None = None,
        height: int | None = None,
        accept: Format | str | None = None,
        deadline: float | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> ImageResponse:
        """
        Make a QR code on the older endpoint.

        Args:
            prompt: What the code says; as `QRCode` takes it, and so are all the others.
            model: An SDXL model.
            width: Pixels.
            height: Pixels.
            accept: ``image/png`` (the default) or ``image/jpeg``.
            deadline: As the client's option.
            extra_body: Further fields of the request.

        Returns:
            The code, as a picture.

        Raises:
            ProdiaError: As `text_to_image` does.
        """
        return await self._run(
            QRCode(
                prompt,
                model=model,
                width=width,
                height=height,
                accept=accept,
                deadline=deadline,
                extra_body=extra_body,
            )
        )

    async def kontext(
        self,
        prompt: str,
        *,
        model: str = KONTEXT_PRO,
        input_image: InputLike | None = None,
        aspect_ratio: str | None = None,
        output_format: Literal["png", "jpeg"] = "png",
        seed: int | None = None,
        prompt_upsampling: bool | None = None,
        safety_tolerance: int | None = None,
        webhook_url: str | None = None,
        webhook_secret: str | None = None,
        poll: float = POLL_SECONDS,
        deadline: float | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> ImageResponse:
        """
        Make or change a picture with FLUX Kontext: submit it, wait for it, fetch it.

        The submission is tried again as any request is. Once it was accepted
        it is paid, and everything after it is asked again when it is lost. An
        error from then on has the task's id as `job_id`, for `kontext_result`.

        Args:
            prompt: What to show, or what to change.
            model: ``flux-kontext-pro`` or ``flux-kontext-max``.
            input_image: What may be an input of a Prodia job, a URL or a data URI.
            aspect_ratio: Between ``21:9`` and ``9:21``; by default the service's choice.
            output_format: ``png`` or ``jpeg``.
            seed: From 0; drawn here for ``None`` and 0, and recorded.
            prompt_upsampling: Have the service rewrite the prompt.
            safety_tolerance: 0 (strict) to 6, at most 2 with an input image.
            webhook_url: Where the service shall tell that it is done.
            webhook_secret: For the signature of that message.
            poll: Seconds before the first look; later ones grow to five times it, or 5 s.
            deadline: Seconds in all; by default the client's.
            extra_body: Further fields of the request; `Kontext` tells more of each.

        Returns:
            The picture; its `id` is the task's.

        Raises:
            ContentFilteredError: The service refused the prompt or the
                picture; there is no picture then.
            JobFailedError: The task failed.
            JobNotFoundError: The server lost it.
            DeadlineExceededError: The deadline passed, or the task took longer than `timeout`.
            ProdiaError: Else as `text_to_image` does.
        """
        return await self._run(
            Kontext(
                prompt,
                model=model,
                input_image=input_image,
                aspect_ratio=aspect_ratio,
                output_format=output_format,
                seed=seed,
                prompt_upsampling=prompt_upsampling,
                safety_tolerance=safety_tolerance,
                webhook_url=webhook_url,
                webhook_secret=webhook_secret,
                poll=poll,
                deadline=deadline,
                extra_body=extra_body,
            )
        )

    async def kontext_result(
        self,
        task_id: str,
        *,
        model: str = KONTEXT_PRO,
        poll: float = POLL_SECONDS,
        deadline: float | None = None,
    ) -> ImageResponse:
        """
        Wait for a Kontext task that was submitted before, here or in another process.

        Args:
            task_id: The `job_id` of an error, or the ``request_id`` of a submission.
            model: The model it was submitted to.
            poll: As `Kontext` takes it.
            deadline: Seconds in all; by default the client's.

        Returns:
            The picture; its seed is not known here, and `request` is ``None``.

        Raises:
            ProdiaError: As `kontext` does.
        """
        check_task_id(task_id)
        check_model(model)
        check_seconds("poll", poll)
        terms = self._terms(deadline)
        began = _waiting.current_time()
        with self._counting(model, terms):
            image, headers = await self._picture(task_id, model, None, poll, terms, spent=0.0)
        total = _waiting.current_time() - began
        timing = Timing(0.0, 0.0, total, total)
        return ImageResponse((image,), None, headers, headers.get("x-request-id"), (), timing)

    def map(
        self,
        requests: Iterable[OrderLike] | AsyncIterable[OrderLike],
        *,
        ordered: bool = False,
        buffer: int = 0,
        accept: Format | str | None = None,
        progress: bool | Callable[[MapProgress], None] = False,
    ) -> Outcomes[OrderLike, ImageOutcome]:
        """
        Make many pictures, few at a time.

        ::

            async with client.map(["a cat", TextToImage("a dog", seed=7)]) as outcomes:
                async for outcome in outcomes:
                    ...

        It pulls, bounds, fails and ends as `AsyncProdia.map` does.

        Args:
            requests: `TextToImage`, `Generate`, `Kontext` and the others, or a
                prompt as text, from an iterable or an async iterable. If it raises,
                what was started still comes out, and then its error is raised.
            ordered: Deliver outcomes in the order of the requests rather than
                as they complete.
            buffer: How many outcomes may lie unread, beyond `max_concurrency`.
            accept: The form of answer where a request does not say. Kontext
                has an `output_format` of its own.
            progress: As `AsyncProdia.map` takes it.

        Returns:
            As `AsyncProdia.map` does.

        Raises:
            InvalidRequestError: `requests` is not iterable, or is a single
                one; `buffer` is negative; another option is out of its range.
        """
        accept_headers(accept, None, None)
        return self._outcomes(
            requests,
            partial(self._run_one_of_many, accept),
            alone=get_args(Order),
            many="requests",
            single="text_to_image(...), generate(...) or kontext(...)",
            ordered=ordered,
            buffer=buffer,
            job_type_of=_model_of,
            progress=progress,
        )


def _model_of(item: OrderLike) -> str | None:
    """Return what shares capacity with what: the model."""
    return FLUX_SCHNELL if isinstance(item, str) else getattr(item, "model", None)
