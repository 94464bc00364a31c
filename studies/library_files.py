"""``python -m studies.library_files``: autoencoders as the libraries that train them store them, measured.

SAELens, sparsify and dictionary_learning make dictionaries of random decoders, wide, square and narrow, and write them
with their own code into folders; `capsolve.measure` gets the folder alone and must find what it measures of the decoder
itself, or refuse. They are no dependencies of any extra: ``pip install sae-lens eai-sparsify dictionary-learning`` in
an environment of its own that has capsolve's extra `safetensors`. What is not installed is said and left out.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

import capsolve

SIZES = ((8, 24), (8, 8), (8, 3))  # dimensions and latents

# What writes a dictionary into a folder and returns its decoder, latents × dimensions.
Writer = Callable[[Path], Any]


def _random(module: Any) -> Any:
    import torch

    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return module


def saelens() -> Iterator[tuple[str, Writer]]:
    """Yield what SAELens writes: a folder with cfg.json and sae_weights.safetensors."""
    from sae_lens.saes.gated_sae import GatedSAE, GatedSAEConfig
    from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
    from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
    from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig
    from sae_lens.saes.transcoder import Transcoder, TranscoderConfig

    kinds = (
        (StandardSAE, StandardSAEConfig, {}),
        (JumpReLUSAE, JumpReLUSAEConfig, {}),
        (GatedSAE, GatedSAEConfig, {}),
        (TopKSAE, TopKSAEConfig, {"k": 2}),
        (Transcoder, TranscoderConfig, {"d_out": 5, "apply_b_dec_to_input": False}),
    )
    for kind, config, more in kinds:
        for dimensions, latents in SIZES:

            def write(folder: Path, made: Any = (kind, config, more, dimensions, latents)) -> Any:
                kind, config, more, dimensions, latents = made
                autoencoder = _random(kind(config(d_in=dimensions, d_sae=latents, **more)))
                autoencoder.save_model(folder)
                return autoencoder.W_dec

            yield f"{kind.__name__} {latents} × {dimensions}", write


def sparsify() -> Iterator[tuple[str, Writer]]:
    """Yield what sparsify writes: a folder with cfg.json and sae.safetensors."""
    import torch
    from sparsify.config import SparseCoderConfig
    from sparsify.sparse_coder import SparseCoder

    settings = (
        {"expansion_factor": 3},
        {"expansion_factor": 1},
        {"num_latents": 20},
        {"expansion_factor": 2, "skip_connection": True},
    )
    for given in settings:

        def write(folder: Path, given: dict[str, Any] = given) -> Any:
            config = SparseCoderConfig(k=2, **given)
            coder = _random(SparseCoder(8, config, device="cpu", dtype=torch.float32))
            coder.save_to_disk(folder)
            return coder.W_dec

        yield " ".join(f"{name}={value}" for name, value in given.items()), write


def dictionary_learning() -> Iterator[tuple[str, Writer]]:
    """Yield what dictionary_learning writes: ae.pt, with config.json and without."""
    import torch
    from dictionary_learning import dictionary
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
    from dictionary_learning.trainers.top_k import AutoEncoderTopK

    names = ("AutoEncoder", "GatedAutoEncoder", "JumpReluAutoEncoder", "AutoEncoderNew")
    kinds: list[tuple[Any, tuple[int, ...]]] = [(getattr(dictionary, name), ()) for name in names]
    kinds += [(AutoEncoderTopK, (2,)), (BatchTopKSAE, (2,))]
    for kind, more in kinds:
        for dimensions, latents in SIZES:
            for configured in (True, False):

                def write(folder: Path, made: Any = (kind, more, dimensions, latents, configured)) -> Any:
                    kind, more, dimensions, latents, configured = made
                    autoencoder = _random(kind(dimensions, latents, *more))
                    torch.save(autoencoder.state_dict(), folder / "ae.pt")
                    if configured:
                        trainer = {"dict_class": kind.__name__, "activation_dim": dimensions, "dict_size": latents}
                        (folder / "config.json").write_text(json.dumps({"trainer": trainer}), encoding="utf-8")
                    decoder = getattr(autoencoder, "W_dec", None)
                    return autoencoder.decoder.weight.T if decoder is None else decoder

                yield f"{kind.__name__} {latents} × {dimensions}{'' if configured else ', no config'}", write


def verdict(write: Writer) -> tuple[str, str]:
    """Return "right", "refused" or "WRONG", and why, of one dictionary."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "dictionary"
        folder.mkdir()
        decoder = write(folder).detach().float().numpy()
        try:
            found = capsolve.measure(folder)
        except ValueError as error:
            return "refused", str(error).replace(name, "")
    wanted = capsolve.measure(decoder, feature_axis="rows")
    same = (found.features, found.dimensions) == decoder.shape
    close = same and abs(found.capacity - wanted.capacity).max() <= 1e-5
    return ("right" if close else "WRONG"), found.weights.reason or "as stored"


@click.command(help=__doc__)
def main() -> None:
    wrong = 0
    for library in (saelens, sparsify, dictionary_learning):
        try:
            cases = list(library())
        except ImportError as error:
            click.echo(f"{library.__name__}: not run, {error}")
            continue
        for name, write in cases:
            found, why = verdict(write)
            wrong += found == "WRONG"
            click.echo(f"{library.__name__}: {name}: {found}, {why}")
    raise SystemExit(wrong > 0)


if __name__ == "__main__":
    main()
