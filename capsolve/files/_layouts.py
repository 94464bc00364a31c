"""Whose file it is: which of its arrays is the decoder, and which of that one's axes counts the features.

A layout is written as one letter per axis: f for features, d for dimensions, p for parts, of which each is a matrix of
its own (the layers of a crosscoder, the instances of a toy model).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capsolve._checks import shown
from capsolve.files.tensors import Tensor, read_json

# Decoders of sparse autoencoders, by the last parts of the names that projects give them, with their layouts; none
# where projects disagree.
DECODERS: dict[str, tuple[str, ...]] = {
    "W_dec": (),  # rows: SAELens, Gemma Scope, sparsify, dictionary_learning's JumpReLU; columns: Qwen Scope
    "w_dec": ("fd",),  # Gemma Scope 2
    "W_decs": ("fd",),  # sparsify with several targets
    "W_dec_": ("fpd",),  # circuit-tracer: one file per layer, numbered
    "W_D": ("fd", "pfd"),  # Language-Model-SAEs
    "D": (),
    "decoder.weight": ("df", "pfd"),  # a torch.nn.Linear: dictionary_learning, Llama Scope; its crosscoders
    "decoder_linear.weight": ("df",),  # the same: Goodfire
}

# Matrices of language models with one vector of the residual stream per feature: a token, or a neuron.
MODELS: dict[str, tuple[str, ...]] = {
    "embed.W_E": ("fd",),  # TransformerLens
    "unembed.W_U": ("df",),
    "mlp.W_out": ("fd",),
    "embed_tokens.weight": ("fd",),  # a torch.nn.Embedding: transformers
    "wte.weight": ("fd",),
    "lm_head.weight": ("fd",),  # a torch.nn.Linear to the tokens
    "predictions.decoder.weight": ("fd",),
    "lm_head.decoder.weight": ("fd",),
    "down_proj.weight": ("df",),  # a torch.nn.Linear from the neurons
    "output.dense.weight": ("df",),
    "dense_4h_to_h.weight": ("df",),
}

# What reads from the dimensions, and is measured only if it is asked for by name.
ENCODERS = (
    *("W_enc", "w_enc", "W_encs", "W_enc_", "W_E", "E", "encoder.weight", "encoder_linear.weight"),
    *("W_skip", "W_skips"),
)

# Vectors beside a decoder, by the last parts of their names: one entry per dimension, or one per feature.
PER_DIMENSION = ("b_dec", "b_decs", "b_d", "decoder.bias", "decoder_bias", "decoder_linear.bias", "pre_bias")
PER_FEATURE = (
    *("b_enc", "b_e", "encoder.bias", "encoder_bias", "encoder_linear.bias", "latent_bias", "b_final"),
    *("b_gate", "b_mag", "r_mag", "gate_bias", "mag_bias", "threshold", "log_threshold"),
)

# Numbers of features and of dimensions in the configurations of projects. The last ones mean other things in other
# files: they count where they fit.
CONFIGURATIONS = ("cfg.json", "config.json")
_FEATURES = ("d_sae", "dict_size", "num_latents")
_DIMENSIONS = ("d_in", "d_out", "activation_dim")
_MAYBE_FEATURES = ("width",)
_MAYBE_DIMENSIONS = ("d_model",)

# Signs of the projects that write W_dec with one row per feature: names of the file, of what the configuration has, of
# what is beside it.
_ROWS = {
    "SAELens": ("sae_weights.safetensors", "architecture", "sae_lens_version"),
    "sparsify": ("encoder.weight", "num_latents", "expansion_factor"),
    "dictionary_learning": ("dict_size", "activation_dim"),
    "Gemma Scope": ("params.npz",),
}

_LONGEST_LIST = 240  # characters


@dataclass(frozen=True)
class Evidence:
    """Something that tells layouts apart."""

    layouts: frozenset[str]
    """Those that agree with it."""
    reason: str
    configured: bool = False
    """Whether a configuration says so, which nobody overrules."""


# ------------------------------------------------------------------------------------------------ which array


def choose(path: Path, stored: Mapping[str, Tensor]) -> str:
    """Return the key of the decoder, or of the only array that may be one."""
    arrays = [key for key, entry in stored.items() if len(entry.shape) in {2, 3} and not _is_bias(key)]
    arrays = [key for key in arrays if sum(size != 1 for size in stored[key].shape) > 1] or arrays
    decoders, models = ([key for key in arrays if _known(key, table)] for table in (DECODERS, MODELS))
    likely = decoders or models or [key for key in arrays if len(stored[key].shape) == 2] or arrays
    if len(likely) == 1 and not _is_encoder(likely[0]):
        return likely[0]
    raise ValueError(f"{path}: a key is needed to choose a matrix; the keys are {listed_keys(stored)}")


def listed_keys(stored: Mapping[str, Tensor]) -> str:
    """Return keys with their shapes, those first that are likely meant: ten at most."""

    def rank(key: str) -> tuple[int, str]:
        if len(stored[key].shape) not in {2, 3} or _is_bias(key):
            return 4, key
        tables: tuple[Iterable[str], ...] = (DECODERS, MODELS)
        unlikely = 3 if _is_encoder(key) else 2
        return next((place for place, table in enumerate(tables) if _known(key, table)), unlikely), key

    return first_ten(f"{shown(key, 80)} {list(stored[key].shape)}" for key in sorted(stored, key=rank)) or "none"


def first_ten(entries: Iterable[str]) -> str:
    """Return the first ten entries at most, with commas between, in a length that fits into a message."""
    entries, text = list(entries), ""
    for count, entry in enumerate(entries):
        longer = f"{text}, {entry}" if text else shown(entry, _LONGEST_LIST)
        if count == 10 or len(longer) > _LONGEST_LIST:
            return f"{text} and {len(entries) - count} more"
        text = longer
    return text


def _is_bias(key: str) -> bool:
    last = _plain(key).rpartition(".")[2]
    return last == "bias" or last.startswith("b_") or last.endswith("_bias")


def _is_encoder(key: str) -> bool:
    return _known(key, (*DECODERS, *MODELS, *ENCODERS)) in ENCODERS


def _known(key: str, names: Iterable[str]) -> str:
    """Return the longest of the names that the key ends in; "" if there is none.

    What stands before a dot makes no difference (``module.``, ``_orig_mod.``, ``layers.3.``), nor does a number at the
    end; but names that end in _ are those of numbered arrays.
    """
    plain, numbered = _plain(key), re.fullmatch(r"(.*)_\d+", key)
    found = [name for name in names if f".{plain}".endswith(f".{name}")]
    if numbered:
        found = [name for name in names if f".{numbered[1]}_".endswith(f".{name}")] or found
    return max(found, key=len, default="")


def _plain(key: str) -> str:
    return re.sub(r"[._]\d+$", "", key.replace("/", "."))


# ------------------------------------------------------------------------------------------- which axis is which


def possible(axes: int) -> tuple[str, ...]:
    """Return the layouts that an array of so many axes may have."""
    return ("fd", "df") if axes == 2 else ("pfd", "pdf", "fpd")


def sizes_say(path: Path, key: str, stored: Mapping[str, Tensor], count: int | None) -> tuple[list[Evidence], str]:
    """Return what sizes beside an array say of its layout, and, where a configuration fits none, what that says.

    ``count`` is the number of features, if it is known from elsewhere.
    """
    shape = stored[key].shape
    found, contradiction = _configured(path, shape)
    layouts = possible(len(shape))
    said = [*_biases(shape, _beside(key, stored))]
    if count is not None:
        fitting = frozenset(layout for layout in layouts if shape[layout.index("f")] == count)
        said.append(Evidence(fitting, f"there are activations of {count} features"))
    said = [item for item in said if item.layouts not in (frozenset(), frozenset(layouts))]
    return ([] if found is None else [found]) + said, contradiction


def name_says(path: Path, key: str, stored: Mapping[str, Tensor]) -> Evidence | None:
    """Return what is known of all arrays of such a name, or of those of the project whose file it is."""
    name, axes = _known(key, DECODERS | MODELS), len(stored[key].shape)
    fitting = frozenset(possible(axes)).intersection((DECODERS | MODELS).get(name, ()))
    if fitting:
        return Evidence(fitting, f"the layout of {shown(key)}")
    if name == "W_dec" and axes == 2:
        signs = {path.name, *(_known(other, ["encoder.weight"]) for other in stored), *_configuration(path)[1]}
        for project, own in _ROWS.items():
            if signs.intersection(own):
                return Evidence(frozenset({"fd"}), f"the layout of {project}")
    return None


def _beside(key: str, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what belongs to the same module, if that has biases; all there is if it has none."""
    name = _known(key, DECODERS | MODELS) or key.rpartition(".")[2]
    prefix = key[: key.rfind(name)]
    own = {other: entry for other, entry in stored.items() if prefix and other.startswith(prefix)}
    return own if any(_role(other) for other in own) else dict(stored)


def _role(key: str) -> str:
    """Return what a vector has one entry for, f or d; "" if that is not known."""
    plain = _plain(key).lower()
    for names, role in ((PER_DIMENSION, "d"), (PER_FEATURE, "f")):
        if _known(plain, names):
            return role
    return ""


def _biases(shape: tuple[int, ...], beside: Mapping[str, Tensor]) -> Iterable[Evidence]:
    """Yield what each vector beside an array says."""
    for key, entry in beside.items():
        role, counted = _role(key), "entries"
        sizes = [size for size in entry.shape if size != 1]  # of [n], [1, n], [n, 1], or one vector for each part
        if _plain(key).endswith("encoder.weight") and len(sizes) == 2:  # a torch.nn.Linear to the features
            role, counted, sizes = "f", "rows", sizes[:1]
        if not role or not sizes:
            continue
        said = frozenset(layout for layout in possible(len(shape)) if shape[layout.index(role)] == sizes[-1])
        if len(sizes) == 2 and len(shape) == 3:
            said = frozenset(layout for layout in said if shape[layout.index("p")] == sizes[0]) or said
        what = "dimension" if role == "d" else "feature"
        yield Evidence(said, f"{shown(key)} has {sizes[-1]} {counted}, one per {what}")


# --------------------------------------------------------------------------------------------- configurations


def _configured(path: Path, shape: tuple[int, ...]) -> tuple[Evidence | None, str]:
    """Return what the configuration beside a file says of an array's layout, and, if it fits none, what it says."""
    where, content = _configuration(path)
    surely = {name: content[name] for name in (*_DIMENSIONS, *_FEATURES) if _is_size(content.get(name))}
    if not any(name in surely for name in _FEATURES) and _is_size(content.get("expansion_factor")) and "d_in" in surely:
        content = content | {"expansion_factor × d_in": content["expansion_factor"] * surely["d_in"]}
    maybe = {
        name: content[name]
        for name in ("expansion_factor × d_in", *_MAYBE_FEATURES, *_MAYBE_DIMENSIONS)
        if _is_size(content.get(name)) and not (name in _MAYBE_DIMENSIONS and any(d in surely for d in _DIMENSIONS))
    }
    everything = frozenset(possible(len(shape)))
    fitting = everything
    for names in (_FEATURES, _DIMENSIONS):
        role = "f" if names is _FEATURES else "d"
        sizes = {surely[name] for name in names if name in surely}  # d_out: of a transcoder's decoder
        if sizes:
            fitting = frozenset(layout for layout in fitting if shape[layout.index(role)] in sizes)
    what = ", ".join(f"{name} = {size}" for name, size in surely.items())
    if not fitting:
        return None, f"{where} has {what}"
    for name, size in maybe.items():
        role = "d" if name in _MAYBE_DIMENSIONS else "f"
        narrower = frozenset(layout for layout in fitting if shape[layout.index(role)] == size)
        if narrower and narrower != fitting:
            fitting, what = narrower, f"{what}, {name} = {size}".removeprefix(", ")
    return None if fitting == everything else Evidence(fitting, f"{where} has {what}", configured=True), ""


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _configuration(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the name and the entries of the configuration beside a file, with those one level below."""
    for name in CONFIGURATIONS:
        if (path.parent / name).is_file():
            content = read_json(path.parent / name)
            if not isinstance(content, dict):
                continue
            inner = [entry for entry in content.values() if isinstance(entry, dict)]
            merged: dict[str, Any] = {}
            for entry in (*inner, content):
                merged |= entry
            return name, merged
    return "", {}
