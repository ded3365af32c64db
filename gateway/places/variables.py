"""The environment variables that a worker gets: a short list, never the gateway's secrets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

#: Passed on when set. Everything else only when the model's entry names it under `env`.
PASSED = frozenset(
    [
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "XDG_CACHE_HOME",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "HF_HOME",
        "HF_HUB_OFFLINE",
        "HF_HUB_CACHE",
        "TRANSFORMERS_CACHE",
        "TRANSFORMERS_OFFLINE",
        "TORCH_HOME",
        "NLTK_DATA",
        "SENTENCE_TRANSFORMERS_HOME",
        "TIKTOKEN_CACHE_DIR",
        "MPLCONFIGDIR",
        "CUDA_HOME",
        "CUDA_PATH",
        "PYTHONDONTWRITEBYTECODE",
    ]
)
PASSED_PREFIXES = ("LC_", "NVIDIA_", "NCCL_")
#: Of the gateway's own Python, and passed on to it alone: another one would not even start.
OWN_PYTHON = frozenset(["PYTHONPATH", "PYTHONHOME"])

#: Numeric libraries read these when they are imported.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)

#: No background threads in a process that will be forked, no telemetry from other people's models.
ALWAYS = {
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "TOKENIZERS_PARALLELISM": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "PYTHONUNBUFFERED": "1",
    "MODELHUB_WORKER": "1",  # a model may want to know that it is being served
    "MPLBACKEND": "Agg",
    "_MLFLOW_IS_IN_SERVING_ENVIRONMENT": "true",  # type hints then take dates and bytes as JSON has them
}


def worker_environment(
    environ: Mapping[str, str],
    *,
    threads: int = 1,
    names: Iterable[str] = (),
    shared: bool = False,
    devices: Iterable[str] | None = None,
) -> dict[str, str]:
    """The variables for a worker (or a fork server, with the defaults).

    `names`: what the model's entry asks for. `shared`: it runs with the gateway's own Python, whose PYTHONPATH and
    PYTHONHOME then belong to it; nobody else gets a PYTHONHOME. `threads` 0: leave the libraries their own choice.
    """
    env = {
        name: value
        for name, value in environ.items()
        if name in PASSED or name.startswith(PASSED_PREFIXES) or (shared and name in OWN_PYTHON)
    }
    env.update(ALWAYS)
    if threads:
        env.update({name: str(threads) for name in THREAD_VARIABLES})
    if devices is not None:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    for name in names:
        if name in environ and (shared or name != "PYTHONHOME"):
            env[name] = environ[name]
    return env
