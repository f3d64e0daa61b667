"""What other libraries print while a model is loaded."""


def silence_libraries() -> None:
    """Keep transformers and diffusers from printing notices and progress bars. Their errors are still raised."""
    # Imported first and alone: importing diffusers makes transformers print a notice.
    from transformers.utils import logging as transformers_log

    transformers_log.set_verbosity_error()
    transformers_log.disable_progress_bar()
    from diffusers.utils import logging as diffusers_log

    diffusers_log.set_verbosity_error()
    diffusers_log.disable_progress_bar()
