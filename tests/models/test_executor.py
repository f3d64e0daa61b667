"""Other executors draw what the eager one draws, for any number of rows."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from serve_app.errors import ModelLoadError
from serve_app.models.denoisers.choose_executor import choose_executor
from serve_app.models.denoisers.executor import CompiledExecutor, EagerExecutor, UNetInputs

ROWS = [1, 2, 3, 5]


def load_unet(folder: Path) -> Any:
    return UNet2DConditionModel.from_pretrained(folder / "unet").eval()


def draw_inputs(unet: Any, rows: int, side: int = 8, tokens: int = 77, masked: bool = False) -> UNetInputs:
    """Random ones of every kind that the UNet takes."""
    dice = torch.Generator().manual_seed(rows)
    mask = torch.ones(rows, tokens)
    mask[0, tokens // 2 :] = 0
    condition = unet.config["time_cond_proj_dim"]
    added = {}
    if unet.config["addition_embed_type"] == "text_time":
        width = unet.config["projection_class_embeddings_input_dim"] - 6 * unet.config["addition_time_embed_dim"]
        added = {"text_embeds": torch.randn(rows, width, generator=dice), "time_ids": torch.full((rows, 6), 64.0)}
    return UNetInputs(
        torch.randn(rows, unet.config["in_channels"], side, side, generator=dice),
        torch.arange(float(rows)) * 100,
        torch.randn(rows, tokens, unet.config["cross_attention_dim"], generator=dice),
        mask if masked else None,
        None if condition is None else torch.randn(rows, condition, generator=dice),
        added,
    )


@pytest.mark.parametrize("rows", ROWS)
def test_compiled_rows_are_padded_and_cut_again(tiny_sd: Path, rows: int) -> None:
    unet = load_unet(tiny_sd)
    inputs = draw_inputs(unet, rows)
    seen: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> torch.fx.GraphModule:
        return graph

    compiled = CompiledExecutor(unet, backend=backend)  # type: ignore[arg-type]
    unet.conv_in.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    with torch.inference_mode():
        expected = EagerExecutor(unet).run(inputs, plain=True)
        assert seen == [rows]
        assert torch.allclose(compiled.run(inputs, plain=True), expected, atol=1e-5)
        assert torch.allclose(compiled.run(inputs, plain=False), expected, atol=1e-5)


@pytest.mark.parametrize("family", ["tiny_sd", "tiny_sdxl", "tiny_lcm", "tiny_inpaint"])
def test_openvino_predicts_what_torch_does(family: str, request: pytest.FixtureRequest) -> None:
    pytest.importorskip("openvino", reason="an optional extra")
    unet = load_unet(request.getfixturevalue(family))
    calls: list[int] = []
    executor = choose_executor("openvino", unet, 1)
    unet.conv_in.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    with torch.inference_mode():
        for rows, side, tokens, masked in ((1, 8, 77, False), (3, 8, 154, True), (2, 16, 77, False), (5, 8, 77, True)):
            inputs = draw_inputs(unet, rows, side, tokens, masked)
            expected = EagerExecutor(unet).run(inputs, plain=True)
            calls.clear()
            assert torch.allclose(executor.run(inputs, plain=True), expected, atol=1e-4)
            assert not calls, "OpenVINO ran it"
            assert torch.equal(executor.run(inputs, plain=False), expected), "rows with LoRAs are torch's"
            assert calls == [rows]


def test_an_executor_that_cannot_run_here_is_refused(tiny_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelLoadError, match="openvino runs on the CPU, and device is meta"):
        choose_executor("openvino", load_unet(tiny_sd).to("meta"), 1)
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "serve_app.models.denoisers.openvino_executor", raising=False)
    with pytest.raises(ModelLoadError, match=r"openvino is not installed .*pip install 'darkroom\[openvino\]'"):
        choose_executor("openvino", load_unet(tiny_sd), 1)
