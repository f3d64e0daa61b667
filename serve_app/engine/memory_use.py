"""What this process holds of its machine's memory and of its GPU's."""

import platform

import psutil
import torch

from serve_app.requests.events import MemoryUse


def measure_memory(device: torch.device) -> MemoryUse:
    """This process's, with its device's."""
    host, used, total = platform.node(), psutil.Process().memory_info().rss, psutil.virtual_memory().total
    if device.type != "cuda":
        return MemoryUse(host, used, total)
    gpu_free, gpu_total = torch.cuda.mem_get_info(device)
    gpu = f"{host}/{torch.cuda.get_device_properties(device).uuid}"
    return MemoryUse(host, used, total, gpu, gpu_total - gpu_free, gpu_total, torch.cuda.memory_reserved(device))
