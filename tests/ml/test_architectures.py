"""The recommended architectures exist, and their figures are those of the network that is built."""

from ml import architectures


def test_every_recommended_architecture_can_be_built_and_has_its_size() -> None:
    choices = architectures.curated()
    assert len({choice.name for choice in choices}) == len(choices)
    assert {choice.name for choice in choices} <= set(architectures.names())
    for choice in choices[:5]:
        built = architectures.build(choice.name, 1000)
        assert sum(parameter.numel() for parameter in built.parameters()) == choice.parameters
        assert 50 < choice.top1 < 90
        assert choice.gigaflops > 0
