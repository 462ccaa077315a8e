"""The page on which one drops a picture and sees its classes; made with Gradio."""

import html
import os
import socket
import tempfile
from typing import Any

import numpy as np

from fcn_jax.demo.segmenter import Segmenter
from fcn_jax.errors import UserError

try:
    # Gradio asks the network for newer versions, and tells it of its use, otherwise.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    import gradio as gr
    from starlette import middleware
except ImportError as error:
    raise UserError(
        "Gradio is missing, which the page is made with; install it: "
        "pip install -e '.[demo]'."
    ) from error

# Whatever a component asks for, the browser sends nothing to another machine.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' "
    "data:; connect-src 'self' ws: data: blob:; worker-src 'self' blob:"
)
_CSS = """
.legend { width: 100%; font-variant-numeric: tabular-nums; }
.legend, .legend tr, .legend td { border: none !important; }
.legend td { padding: .25rem .4rem !important; overflow-wrap: anywhere; }
.legend td:first-child { width: 2em; }
.legend td:last-child { text-align: right; white-space: nowrap; }
.legend i { display: inline-block; width: 1.1em; height: 1.1em; border-radius: 3px;
  border: 1px solid currentColor; vertical-align: text-bottom; }
.message { border-left: 4px solid #d33; padding: .5rem .8rem; }
#result img { width: 100%; max-height: 75vh; object-fit: contain; }
"""
_TITLE = "What is where in a picture"


class _Secure:
    """Adds the policy to every answer."""

    def __init__(self, app):
        self._app = app

    async def __call__(self, scope, receive, send):
        async def send_with_policy(message):
            if message["type"] == "http.response.start":
                header = (b"content-security-policy", _POLICY.encode())
                message["headers"] = [*message["headers"], header]
            await send(message)

        await self._app(scope, receive, send_with_policy)


def build(segmenter: Segmenter, description: str) -> gr.Blocks:
    """Lays out the page.

    Args:
        segmenter: Answers it.
        description: One line on the network, plain text.
    """

    def segment(path: str | None, opacity: float) -> tuple[Any, ...]:
        hidden = gr.DownloadButton(visible=False)
        if path is None:
            return None, None, gr.HTML(visible=False), "", hidden
        try:
            image, ids = segmenter.segment(path)
        except UserError as error:
            message = f'<p class="message" role="alert">{html.escape(str(error))}</p>'
            return None, None, gr.HTML(message, visible=True), "", hidden
        shown = segmenter.overlay(image, ids, opacity)
        folder = tempfile.mkdtemp(prefix="fcn_jax-")
        mask = gr.DownloadButton(value=segmenter.save(ids, folder), visible=True)
        legend = segmenter.legend(ids)
        return (image, ids), shown, gr.HTML(visible=False), legend, mask

    def blend(state: tuple | None, opacity: float) -> np.ndarray | None:
        return None if state is None else segmenter.overlay(*state, opacity)

    with gr.Blocks(title=_TITLE, analytics_enabled=False) as page:
        gr.HTML(f"<h1>{_TITLE}</h1><p>{html.escape(description)}</p>")
        state = gr.State(None)
        with gr.Row():
            with gr.Column(scale=2, min_width=260):
                file = gr.File(label="Picture", file_count="single", elem_id="picture")
                opacity = gr.Slider(
                    0,
                    1,
                    0.5,
                    step=0.05,
                    label="Opacity of the colours",
                    elem_id="opacity",
                )
                message = gr.HTML(elem_id="message", visible=False)
            with gr.Column(scale=4, min_width=300):
                shown = gr.Image(
                    label="Result",
                    format="jpeg",
                    interactive=False,
                    elem_id="result",
                    buttons=["fullscreen"],
                    alt_text="The picture under the colours of its classes",
                )
            with gr.Column(scale=2, min_width=220):
                legend = gr.HTML(elem_id="legend")
                mask = gr.DownloadButton("Download the mask", visible=False)
        outputs = [state, shown, message, legend, mask]
        file.change(segment, [file, opacity], outputs, concurrency_id="device")
        opacity.input(
            blend,
            [state, opacity],
            shown,
            show_progress="hidden",
            trigger_mode="always_last",
        )
    return page.queue(default_concurrency_limit=1)


def launch(page: gr.Blocks, *, host: str, port: int, max_upload_mb: int) -> None:
    """Serves the page until it is interrupted.

    Args:
        page: see ``build``.
        host: address to listen on.
        port: and its port; 0: any that is free.
        max_upload_mb: larger files are refused.

    Raises:
        UserError: If the address cannot be listened on.
    """
    try:
        socket.getaddrinfo(host or None, port)
    except OSError as error:
        raise UserError(
            f"--host={host} is no address of this machine ({error}); use 127.0.0.1."
        ) from error
    system = ("system-ui", "sans-serif")
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port or None,
            max_file_size=f"{max_upload_mb}mb",
            share=False,
            ssr_mode=False,
            quiet=True,
            prevent_thread_lock=True,
            footer_links=[],
            theme=gr.themes.Default(
                font=system, font_mono=("ui-monospace", "monospace")
            ),
            css=_CSS,
            app_kwargs={"middleware": [middleware.Middleware(_Secure)]},
        )
    except OSError as error:
        raise UserError(
            f"The page cannot be served on {host}, port {port or 'any'} ({error}); "
            "choose another --port or --host."
        ) from error
    print(f"Open {address} in a browser on this machine; Ctrl-C ends.", flush=True)
    page.block_thread()
