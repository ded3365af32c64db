"""The classes that users subclass: a model with `load` and `predict`, and a method for each kind of request.

A service is made and perhaps loaded in the user's script, or in a worker where the configuration names its
class (`service: "package.module:Class"`); a worker calls it through `adapter.py`. Every handler
takes `(request, headers=None)` and may be `async`:

    request   the fields of the request (workers/convert/kinds.py says what they hold): {"text": "…"}, {"data": […]}, …
    headers   the HTTP headers, names in lower case
    returns   {"statusCode": 200, "data": …} or {"statusCode": 4xx, "message": "…"}, passed on as it is and
              its statusCode as the HTTP status; anything else is the `data` of a 200, or the outputs of V2
"""

from __future__ import annotations

import functools
import inspect
from typing import Any, Callable, ClassVar, Dict, FrozenSet, List, Mapping, Optional

from ...protocol.errors import InvalidRequest, NotReady, NotSupported
from ..convert.kinds import IMAGE, IMAGES, PDF, RAW, TABULAR, TEXT, V2, kind_of
from .defaults import INNER, default_answer, images_of, load_service
from .rerun import rerunning

#: Kind of a request -> the method that answers it.
HANDLERS: Dict[str, str] = {
    TEXT: "predict_text",
    TABULAR: "predict_tabular",
    IMAGE: "predict_image",
    IMAGES: "predict_images",
    PDF: "predict_pdf",
    V2: "predict_raw",
    RAW: "predict_raw",
}

Request = Dict[str, Any]
Headers = Optional[Dict[str, str]]


class ModelhubModelService:
    """One MLflow model behind the methods that a request's kind chooses; override what should be different.

    name: in the routes. run_uri: runs:/…, models:/…, another MLflow URI or a folder. model_type: pyfunc;
    sklearn loads the native estimator, transformer the pipeline of `mlflow.transformers`; any other is pyfunc.
    """

    #: What this service takes by default; a kind whose method is overridden is taken anyway.
    kinds: ClassVar[FrozenSet[str]] = frozenset(HANDLERS)
    #: What an upload is whose kind nothing tells.
    upload_kind: ClassVar[str] = RAW
    #: Keys of an entry in a configuration file, for a service in a script: {"timeout": "60s", "replicas": 2}.
    settings: Mapping[str, Any] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = cls.__dict__.get("load")
        if inspect.isfunction(own):
            cls.load = _marking_ready(own)  # type: ignore[method-assign]

    def __init__(self, name: str, run_uri: str, model_type: str = "pyfunc") -> None:
        self.name = name
        self.run_uri = run_uri
        self.model_type = model_type
        #: Whether requests can be answered; `load` makes it true.
        self.ready = False
        #: What `load` loaded: a pyfunc model, an estimator or a pipeline.
        self.loaded_model: Any = None
        #: The model's folder on this machine, once it is known.
        self.model_path = ""
        #: The registry's version, "" where the URI has none.
        self.version = ""

    def load(self) -> bool:
        """Bring the model here and load it; `loaded_model` holds it then. Returns `ready`.

        Raises NotFound, NotReady, ConfigError or LoadError, or what the model's own code raises.
        """
        load_service(self)
        return self.ready

    def predict(self, request: Request, headers: Headers = None) -> Any:
        """Answer a request of any kind, by the method of its kind."""
        if not self.ready:
            raise NotReady(f"model {self.name} is not loaded", retry_after=1.0)
        return getattr(self, self.handler_of(request))(request, headers)

    def predict_text(self, request: Request, headers: Headers = None) -> Any:
        """`request["text"]` is a str, or a list of them."""
        return self._by_default(TEXT, request)

    def predict_tabular(self, request: Request, headers: Headers = None) -> Any:
        """`request["data"]` is a list of records, or one."""
        return self._by_default(TABULAR, request)

    def predict_image(self, request: Request, headers: Headers = None) -> Any:
        """`request["image"]` is an image file's bytes."""
        return self._by_default(IMAGE, request)

    def predict_images(self, request: Request, headers: Headers = None) -> Any:
        """`request["images"]` is a list of image files' bytes."""
        return self._by_default(IMAGES, request)

    def predict_pdf(self, request: Request, headers: Headers = None) -> Any:
        """`request["pdf_file"]` (or `byte_stream`) is a PDF file's bytes."""
        return self._by_default(PDF, request)

    def predict_raw(self, request: Request, headers: Headers = None) -> Any:
        """V2 requests (`inputs`), and uploads whose kind nothing tells (`request["data"]` is bytes)."""
        if "inputs" in request:
            return self._by_default(V2, request)
        raise InvalidRequest(
            "nothing tells what the uploaded bytes are: send a Content-Type, or say "
            "?inference_type=text|image|pdf|tabular"
        )

    def kind_of(self, request: Mapping[str, Any]) -> str:
        """The request's kind, as this service takes it. Raises InvalidRequest."""
        kind = kind_of(request)
        return self.upload_kind if kind == RAW else kind

    def handler_of(self, request: Request) -> str:
        """The name of the method that answers this request. Raises InvalidRequest for a kind that is not taken."""
        kind = self.kind_of(request)
        name = HANDLERS[kind]
        if kind not in self.kinds and not overrides(self, name):
            taken = ", ".join(sorted(self.kinds - {RAW}))
            raise InvalidRequest(f"model {self.name} takes no requests of the kind {kind}: it takes {taken}")
        return name

    def name_upload(self, request: Request) -> None:
        """Uploaded bytes whose kind nothing tells are put under the field of what this service takes, too."""
        if self.upload_kind in _UPLOADS and isinstance(request.get("data"), bytes) and kind_of(request) == RAW:
            request[_UPLOADS[self.upload_kind]] = request["data"]

    def _by_default(self, kind: str, request: Request) -> Any:
        """What the model says to this request, converted to what its signature wants."""
        if self.loaded_model is None:
            raise NotSupported(
                f"model {self.name} has no model for requests of the kind {kind}: its service loads none"
            )
        return default_answer(self, kind, request)

    def __getstate__(self) -> Dict[str, Any]:
        """For a fresh interpreter, which loads the model itself: without what `load` has made."""
        state = {name: value for name, value in self.__dict__.items() if name not in _OF_THIS_PROCESS}
        for name, value in self.__dict__.get(_MADE, {}).items():
            state[name] = value
            if value is _NOTHING:
                del state[name]
        state.update(loaded_model=None, ready=False)
        return state


def _marking_ready(load: Callable[..., Any]) -> Callable[..., Any]:
    """A `load` of the user's own, which need not know of `ready`: else it would be called once more at the start."""

    @functools.wraps(load)
    def marked(self: ModelhubModelService, *args: Any, **kwargs: Any) -> Any:
        if rerunning():
            return False  # only the script's definitions count then
        before = dict(self.__dict__)
        result = load(self, *args, **kwargs)
        self.__dict__[_MADE] = {
            name: before.get(name, _NOTHING)
            for name, value in self.__dict__.items()
            if name not in _KEPT and value is not before.get(name, _NOTHING)
        }
        if result is not False and not inspect.isawaitable(result):
            self.ready = True
        return result

    return marked


#: Where a service notes what its own `load` has set: the names, and what they were before.
_MADE = "_made_by_load"
_NOTHING: Any = object()
#: What a load finds out is of use to the next one.
_KEPT = frozenset({"model_path", "version", _MADE})
_OF_THIS_PROCESS = frozenset({INNER, _MADE})


_UPLOADS: Dict[str, str] = {IMAGE: "image", PDF: "pdf_file"}


class ImageModelService(ModelhubModelService):
    """For images and documents: `image`, `images` and PDF; an unknown upload is taken for an image."""

    kinds = frozenset({IMAGE, IMAGES, PDF, V2})
    upload_kind = IMAGE

    def images_of(self, request: Request) -> List[Any]:
        """Every image of the request as a PIL image: of `image`, `images`, and each page of a PDF."""
        return images_of(self, request)


class TextModelService(ModelhubModelService):
    """For text: `text`, or an upload of text."""

    kinds = frozenset({TEXT, V2})


class TabularModelService(ModelhubModelService):
    """For tables: `data` with records, or an upload of CSV."""

    kinds = frozenset({TABULAR, V2})


class AutoModelPredictor(ModelhubModelService):
    """Any MLflow model; the kind of every request is told by the request itself."""

    def __init__(
        self,
        name: str,
        model_uri: Optional[str] = None,
        model_name: Optional[str] = None,
        version: Optional[str] = None,
        model_type: str = "pyfunc",
    ) -> None:
        """Give `model_uri`, or the registered model's name and perhaps its version (default: the latest)."""
        if bool(model_uri) == bool(model_name):
            raise ValueError(
                "AutoModelPredictor needs one of model_uri and model_name: give model_uri='runs:/<id>/model'"
            )
        if model_uri and version is not None:
            raise ValueError("version belongs to model_name; model_uri has its version in itself")
        super().__init__(name, model_uri or f"models:/{model_name}/{version or 'latest'}", model_type)


def overrides(service: Any, method: str) -> bool:
    """Is this method the user's own, and not one of this file?"""
    function = getattr(getattr(service, method, None), "__func__", None)
    return getattr(function, "__module__", "") != __name__
