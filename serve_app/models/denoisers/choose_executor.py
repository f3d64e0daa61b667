"""The executor that a config names."""

from diffusers import UNet2DConditionModel

from serve_app.config import ModelConfig
from serve_app.errors import ModelLoadError
from serve_app.models.cpu_threads import count_cores
from serve_app.models.denoisers.executor import CompiledExecutor, EagerExecutor, Executor


def choose_executor(name: str, unet: UNet2DConditionModel, cores: int) -> Executor:
    """The executor `name`. Raises ModelLoadError where it is not installed, or does not run on the UNet's device."""
    if name == "compiled":
        return CompiledExecutor(unet)
    if name == "eager":
        return EagerExecutor(unet)
    if unet.device.type != "cpu":
        raise ModelLoadError(
            f"executor: openvino runs on the CPU only, and device is {unet.device.type}; use eager or compiled"
        )
    try:
        from serve_app.models.denoisers.openvino_executor import OpenVINOExecutor
    except ImportError as error:
        raise ModelLoadError(
            f"executor: openvino is not installed ({error}): pip install 'darkroom[openvino]'"
        ) from error
    return OpenVINOExecutor(unet, cores)


def torch_cores(config: ModelConfig) -> int:
    """The cores that the thread which calls the executor should claim.

    One for OpenVINO: it has threads of its own, beside which torch's would only spin.
    """
    return 1 if config.executor == "openvino" and not config.loras else count_cores(config.cpu_threads)
