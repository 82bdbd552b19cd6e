"""Augmentation: pure in its seed, exact where it is switched off, and mixing that says what it did."""

import random
from dataclasses import replace

import pytest
import torch

from ml import augment
from ml.augment import NONE, Augmentation, for_inference, for_training, mix
from ml.presets import ImagenetPreset, WholePreset, from_card, to_card

PICTURE = torch.randint(0, 256, (3, 40, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
ALL = Augmentation(rotation=20, colour=0.3, hue=0.05, rand_operations=2)


def test_without_augmentation_training_sees_what_inference_sees() -> None:
    preset = WholePreset(16)
    assert torch.equal(for_training(PICTURE, preset, 16, NONE, random.Random(1)), for_inference(PICTURE, preset))


@pytest.mark.parametrize("preset", [WholePreset(16), ImagenetPreset(resize=18, size=16)])
def test_a_view_is_made_of_its_seed_alone(preset: WholePreset | ImagenetPreset) -> None:
    torch.manual_seed(1)
    first = for_training(PICTURE, preset, 16, ALL, random.Random(5))
    torch.manual_seed(2)
    random.seed(9)
    assert torch.equal(first, for_training(PICTURE, preset, 16, ALL, random.Random(5)))
    assert not torch.equal(first, for_training(PICTURE, preset, 16, ALL, random.Random(6)))
    assert (first.dtype, first.shape) == (torch.uint8, (3, 16, 16))


@pytest.mark.parametrize("name", augment._RAND_OPERATIONS)
@pytest.mark.parametrize("strength", [-1.0, -0.3, 0.3, 1.0])
def test_every_operation_keeps_kind_and_shape(name: str, strength: float) -> None:
    changed = augment._rand_operation(PICTURE[:, :16, :16], name, strength)
    assert (changed.dtype, changed.shape) == (torch.uint8, (3, 16, 16))
    if name not in ("identity", "posterize", "autocontrast", "translate_x", "translate_y"):
        assert not torch.equal(changed, PICTURE[:, :16, :16])


def test_a_flip_is_the_mirror_image() -> None:
    flipped = for_training(PICTURE, WholePreset(16), 16, replace(NONE, flip=1.0), random.Random(1))
    assert torch.equal(flipped.flip(2), for_training(PICTURE, WholePreset(16), 16, NONE, random.Random(1)))


def test_a_rotation_brings_no_black_corner() -> None:
    white = torch.full((3, 32, 32), 255, dtype=torch.uint8)
    turned = for_training(white, WholePreset(32), 32, replace(NONE, rotation=45), random.Random(1))
    assert int(turned.min()) == 255


def test_crops_of_the_squashed_frame_keep_its_proportions() -> None:
    how = replace(NONE, crop_scale=(0.25, 0.25))
    _, _, rows, columns = augment._box(400, 200, True, how, random.Random(1))
    assert (rows, columns) == (200, 100)
    _, _, rows, columns = augment._box(400, 200, False, how, random.Random(1))
    assert rows == columns == 141


def _batch() -> torch.Tensor:
    return torch.stack([torch.full((3, 20, 20), 50 * at, dtype=torch.uint8) for at in range(5)])


def test_mixup_is_the_weighted_mean_it_claims() -> None:
    mixed, partner, share = mix(_batch(), Augmentation(mixup=1.0, mix_share=1.0), random.Random(4))
    assert 0 < share < 1
    wanted = share * _batch().float() + (1 - share) * _batch()[partner].float()
    assert float((mixed.float() - wanted).abs().max()) <= 0.5


def test_cutmix_pastes_the_share_it_claims() -> None:
    batch = _batch()
    mixed, partner, share = mix(batch, Augmentation(cutmix=1.0, mix_share=1.0), random.Random(4))
    other = next(at for at in range(5) if int(partner[at]) != at)
    kept = float((mixed[other, 0] == batch[other, 0]).float().mean())
    assert kept == pytest.approx(share)
    assert 0 < share < 1


def test_nothing_is_mixed_unless_asked() -> None:
    mixed, partner, share = mix(_batch(), Augmentation(), random.Random(1))
    assert (torch.equal(mixed, _batch()), partner.tolist(), share) == (True, [0, 1, 2, 3, 4], 1.0)


def test_the_whole_preset_survives_a_card() -> None:
    assert from_card(to_card(WholePreset(96))) == WholePreset(96)
    shown = WholePreset(8)(torch.cat([torch.zeros(3, 5, 40), torch.full((3, 5, 40), 200)], 1).to(torch.uint8))
    assert (int(shown[:, 0].max()), int(shown[:, -1].min())) == (0, 200)
