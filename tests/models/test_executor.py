"""Other executors predict what the eager one predicts, for any number of rows."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from serve_app.errors import ModelLoadError
from serve_app.models.denoisers.choose_executor import choose_executor
from serve_app.models.denoisers.executor import CompiledExecutor, EagerExecutor, UNetInputs
from tests.checkpoints import make_unet

FAMILIES = ["tiny_sd", "tiny_sdxl", "tiny_lcm", "tiny_inpaint"]


def load_unet(folder: Path) -> Any:
    return UNet2DConditionModel.from_pretrained(folder / "unet").eval()


def unet_with_every_input() -> Any:
    """An SDXL UNet for inpainting that is also distilled: it takes everything that `UNetInputs` can hold."""
    torch.manual_seed(0)
    return make_unet(
        80,
        in_channels=9,
        attention_head_dim=4,
        time_cond_proj_dim=32,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 48,
    ).eval()


def random_inputs(unet: Any, rows: int, side: int = 8, tokens: int = 77, masked: bool = False) -> UNetInputs:
    """Random tensors of every kind that the UNet takes."""
    generator = torch.Generator().manual_seed(rows)
    mask = torch.ones(rows, tokens)
    mask[0, tokens // 2 :] = 0
    condition = unet.config["time_cond_proj_dim"]
    added = {}
    if unet.config["addition_embed_type"] == "text_time":
        width = unet.config["projection_class_embeddings_input_dim"] - 6 * unet.config["addition_time_embed_dim"]
        added = {"text_embeds": torch.randn(rows, width, generator=generator), "time_ids": torch.full((rows, 6), 64.0)}
    return UNetInputs(
        latents=torch.randn(rows, unet.config["in_channels"], side, side, generator=generator),
        timesteps=torch.arange(float(rows)) * 100,
        prompt_embeds=torch.randn(rows, tokens, unet.config["cross_attention_dim"], generator=generator),
        prompt_mask=mask if masked else None,
        timestep_cond=None if condition is None else torch.randn(rows, condition, generator=generator),
        added=added,
    )


class RowMean(torch.nn.Module):
    """As small as a denoiser can be: each row's mean over its prompt, times its latents."""

    dtype = torch.float32

    def forward(self, latents: torch.Tensor, timesteps: torch.Tensor, **inputs: Any) -> tuple[torch.Tensor]:
        return (latents * inputs["encoder_hidden_states"].mean(dim=(1, 2)).view(-1, 1, 1, 1),)


def compile_and_record(unet: Any, graphs: list[int]) -> CompiledExecutor:
    """A compiled executor whose backend runs the graph as it is, and notes the rows that each graph is made for."""

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(next(len(one) for one in inputs if one.dim() == 4 and one.shape[-1] == 8))
        return graph

    return CompiledExecutor(unet, backend=backend)  # type: ignore[arg-type]


def test_compiled_rows_are_padded_to_powers_of_two_and_cut_again() -> None:
    graphs: list[int] = []
    eager, compiled = EagerExecutor(RowMean()), compile_and_record(RowMean(), graphs)  # type: ignore[arg-type]
    with torch.inference_mode():
        for rows in (1, 2, 3, 4, 5, 7):
            inputs = UNetInputs(
                latents=torch.randn(rows, 4, 8, 8),
                timesteps=torch.ones(rows),
                prompt_embeds=torch.randn(rows, 77, 16),
                prompt_mask=None,
            )
            assert torch.allclose(compiled.run(inputs, no_lora=True), eager.run(inputs, no_lora=True), atol=1e-6)
    assert graphs == [1, 2, 4, 8], "one graph for each power of two"


def test_the_compiled_unet_predicts_what_the_eager_one_does() -> None:
    unet, graphs = unet_with_every_input(), list[int]()
    compiled, inputs = compile_and_record(unet, graphs), random_inputs(unet, 3, masked=True)
    with torch.inference_mode():
        expected = EagerExecutor(unet).run(inputs, no_lora=True)
        assert torch.equal(compiled.run(inputs, no_lora=False), expected), "batches with LoRAs run eagerly"
        assert not graphs
        assert torch.allclose(compiled.run(inputs, no_lora=True), expected, atol=1e-5)
        assert graphs == [4]


def test_openvino_predicts_what_torch_does() -> None:
    assert_openvino_agrees(unet_with_every_input())


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_openvino_predicts_what_torch_does_for_each_family(family: str, request: pytest.FixtureRequest) -> None:
    assert_openvino_agrees(load_unet(request.getfixturevalue(family)))


def assert_openvino_agrees(unet: Any) -> None:
    """For several numbers of rows, sizes and prompt lengths, with and without a mask."""
    pytest.importorskip("openvino", reason="an optional extra")
    calls: list[int] = []
    executor = choose_executor("openvino", unet, 1)
    unet.conv_in.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    with torch.inference_mode():
        for rows, side, tokens, masked in ((1, 8, 77, False), (3, 8, 154, True), (2, 16, 77, False), (5, 8, 77, True)):
            inputs = random_inputs(unet, rows, side, tokens, masked)
            expected = EagerExecutor(unet).run(inputs, no_lora=True)
            calls.clear()
            assert torch.allclose(executor.run(inputs, no_lora=True), expected, atol=1e-4)
            assert not calls, "torch must not run it"
            assert torch.equal(executor.run(inputs, no_lora=False), expected), "batches with LoRAs run on torch"
            assert calls == [rows]


def test_an_executor_that_cannot_run_here_is_refused(tiny_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ModelLoadError, match="openvino runs on the CPU only, and device is meta; use eager or compiled"
    ):
        choose_executor("openvino", load_unet(tiny_sd).to("meta"), 1)
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "serve_app.models.denoisers.openvino_executor", raising=False)
    with pytest.raises(ModelLoadError, match=r"openvino is not installed .*pip install 'darkroom\[openvino\]'"):
        choose_executor("openvino", load_unet(tiny_sd), 1)
