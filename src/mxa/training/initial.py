"""The weights that a run starts from: random, ImageNet's, or a saved model's."""

from torch import Tensor, nn

from mxa.errors import ConfigError
from mxa.labels import LabelSet
from mxa.models.artifact import Classifier, load
from mxa.models.build import build_model
from mxa.preprocess import Preprocess
from mxa.training.config import ModelConfig


def initial_model(config: ModelConfig, labels: LabelSet, preprocess: Preprocess) -> nn.Module:
    """Make the network with its initial weights.

    Args:
        config: which network, and what it starts from.
        labels: the L findings.
        preprocess: the run's contract.

    Raises:
        ConfigError: the network is unknown, or the weights to start from do not fit it or the run's pixel scaling.
        ArtifactError: the model to start from cannot be loaded.
    """
    model = build_model(config.name, len(labels), preprocess.size, pretrained=config.pretrained, options=config.options)
    if config.warm_start:
        source = load(config.warm_start)
        _check_scaling(source.preprocess, preprocess)
        _warm_start(model, source, labels)
    return model


def _check_scaling(source: Preprocess, own: Preprocess) -> None:
    """Weights that were trained on other pixel values would start from nonsense without a word."""
    if (source.mean, source.std) != (own.mean, own.std):
        raise ConfigError(
            f"model.warm_start was trained with preprocess.mean {source.mean} and preprocess.std {source.std}, this "
            f"run has {own.mean} and {own.std}; use the model's, so that its weights see what they expect"
        )


def _warm_start(model: nn.Module, source: Classifier, labels: LabelSet) -> None:
    """Copy a saved model's weights; the head only where its findings are ours, in our order."""
    state: dict[str, Tensor] = source.model.state_dict()
    own = model.state_dict()
    if source.labels.findings != labels.findings:
        head = model.get_classifier()  # type: ignore[operator]
        names = [name for name, module in model.named_modules() if module is head]
        state = {key: own[key] if key.startswith(f"{names[0]}.") else value for key, value in state.items()}
    shared = sorted(set(own) & set(state))
    differing = sorted(set(own) ^ set(state)) + [key for key in shared if own[key].shape != state[key].shape]
    if differing:
        raise ConfigError(
            f"model.warm_start is a {source.architecture.name}, whose weights do not fit: {differing[:3]} "
            f"({len(differing)} in all); use the same model.name, model.options and preprocess.size"
        )
    model.load_state_dict(state)
