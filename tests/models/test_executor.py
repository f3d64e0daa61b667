"""Compiled UNets draw what eager ones draw, for any number of rows."""

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from serve_app.models.executor import CompiledExecutor, EagerExecutor, UNetInputs


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_rows_are_padded_and_cut_again(tiny_sd: Path, rows: int) -> None:
    unet = UNet2DConditionModel.from_pretrained(tiny_sd / "unet").eval()
    inputs = UNetInputs(torch.randn(rows, 4, 8, 8), torch.arange(float(rows)), torch.randn(rows, 77, 32), None)
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
