from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from shiftproof.data.sampling import Feed, Patches, cut, seeded, whole
from shiftproof.data.store import IGNORE, inside
from shiftproof.errors import OptionError, SplitError

DOMAINS = ["d0", "d1", "d2"]


@pytest.fixture
def source(toys):
    return [c for i, d in enumerate(DOMAINS) for c in toys.cases(d, 2 + i, seed=i)]


def feed(source, **options) -> Feed:
    return Feed(source, DOMAINS, options.pop("patches", Patches((8, 8))), **{"size": 6, **options})


def test_balanced_batches_hold_each_domain_equally_often(source):
    f = feed(source, batches="balanced")
    for index in range(5):
        assert Counter(f.batch(index).source.domain.tolist()) == {0: 2, 1: 2, 2: 2}


def test_what_is_left_over_goes_around_the_domains(source):
    f = feed(source, batches="balanced", size=7)
    total = Counter(d for index in range(30) for d in f.batch(index).source.domain.tolist())
    assert max(total.values()) - min(total.values()) <= 1
    assert all(len(f.batch(index).source) == 7 for index in range(3))


def test_one_domain_batches_take_turns(source):
    f = feed(source, batches="one domain")
    seen = []
    for index in range(9):
        domains = set(f.batch(index).source.domain.tolist())
        assert len(domains) == 1
        seen += list(domains)
    for round_ in range(3):
        assert sorted(seen[3 * round_ : 3 * round_ + 3]) == [0, 1, 2]


def test_mixed_batches_draw_each_subject_equally_often(source):
    f = feed(source, batches="mixed", size=3)
    total = Counter(s for index in range(3 * len(source)) for s in f.batch(index).source.subject)
    assert set(total.values()) == {9}
    assert len(total) == len(source)


def test_a_foreground_patch_is_centred_on_a_structure(source):
    for seed in range(20):
        patch = cut(source[0], Patches((8, 8), foreground=1.0), DOMAINS, seeded(seed))
        middle = patch.label[0, 4, 4]
        # Centres near the border are moved inwards, so the centre can leave the structure.
        assert patch.extra["centre"][0] == middle
        assert (patch.label > 0).any()


def test_share_of_foreground_centres_follows_the_option(toys):
    (case,) = toys.cases("d0", 1)
    label = np.zeros_like(case.label)
    label[8, 8, 4] = 1
    case.label, case.centres = label, {1: np.argwhere(label == 1)}
    hits = [
        bool((cut(case, Patches((5, 5), foreground=0.25), DOMAINS, seeded(1, s)).label > 0).any()) for s in range(600)
    ]
    # By chance a patch of 5 x 5 in one of 8 slices holds the voxel with probability 25/144/8 = 2 %.
    assert 0.20 < np.mean(hits) < 0.34


def test_image_and_label_are_cut_at_the_same_place(source):
    case = source[0]
    case.image = np.asarray(case.label)[None].astype(np.float32)
    for size in [(8, 8), (8, 8, 4)]:
        patch = cut(case, Patches(size), DOMAINS, seeded(3))
        assert torch.equal(patch.image[0, 0], patch.label[0].float())


def test_a_small_case_is_filled_and_what_is_filled_says_nothing(toys):
    (case,) = toys.cases("d1", 1)
    patch = cut(case, Patches((24, 16)), DOMAINS, seeded(0))
    assert patch.image.shape == (1, 1, 24, 16)
    assert patch.extra["ignore"][0, :4].all()
    assert patch.extra["ignore"][0, -4:].all()
    assert not patch.extra["ignore"][0, 4:-4].any()
    assert (patch.image[0, 0, :4] == 0).all()
    assert int(patch.domain[0]) == 1


def test_ignored_voxels_become_a_fact_of_their_own(toys):
    (case,) = toys.cases("d0", 1)
    case.label[0, 0, :] = IGNORE
    samples = whole(case, 2, DOMAINS)
    assert samples.extra["ignore"][:, 0, 0].all()
    assert int(samples.label.max()) == 2
    assert len(samples) == 8


def test_streams_and_targets_come_beside_the_source(toys, source):
    target = toys.cases("t", 2, labelled=False)
    f = Feed(source[1:], [*DOMAINS, "t"], Patches((8, 8)), size=6, target=target, streams={"validation": source[:1]})
    batch = f.batch(0)
    assert len(batch.target) == 6
    assert batch.target.label is None
    assert batch.target.domain.tolist() == [3] * 6
    assert set(batch.streams["validation"].subject) == {source[0].subject}


def test_a_stream_that_overlaps_with_training_is_refused(source):
    with pytest.raises(SplitError, match=r'stream "validation" that are trained on, too: d00; .*give each subject one'):
        Feed(source, DOMAINS, Patches((8, 8)), streams={"validation": source[:1]})


def two_structures(toys):
    (case,) = toys.cases("d0", 1)
    label = np.zeros_like(case.label)
    label[2, 2, 1], label[9, 9, 6] = 1, 2
    outside = np.zeros(label.shape, bool)
    outside[:, :2], outside[:, -2:], outside[:2], outside[-2:] = True, True, True, True
    case.image = np.where(outside, -1.5, np.random.default_rng(0).normal(size=label.shape))[None].astype(np.float32)
    case.label, case.centres = label, {k: np.argwhere(label == k) for k in range(3)}
    case.elsewhere = inside(case.image, case.centres[0])
    return case, outside


def test_each_structure_has_its_own_share_of_the_centres(toys):
    case, _ = two_structures(toys)
    patches = Patches((5, 5), foreground={1: 0.2, 2: 0.6})
    drawn = Counter(int(cut(case, patches, DOMAINS, seeded(2, s)).extra["drawn"]) for s in range(1000))
    assert abs(drawn[1] - 200) < 50
    assert abs(drawn[2] - 600) < 60
    centres = [cut(case, patches, DOMAINS, seeded(2, s)).extra for s in range(50)]
    assert all(e["centre"] == e["drawn"] for e in centres if e["drawn"] > 0)  # both lie far from the border


def test_a_structure_that_a_case_lacks_leaves_its_share_to_the_others_that_are_named(toys):
    case, _ = two_structures(toys)
    del case.centres[2]
    drawn = {
        int(cut(case, Patches((5, 5), foreground={1: 0.5, 2: 0.5}), DOMAINS, seeded(s)).extra["drawn"])
        for s in range(40)
    }
    assert drawn == {1}
    nothing = cut(case, Patches((5, 5), foreground={2: 1.0}), DOMAINS, seeded(0))
    assert int(nothing.extra["drawn"]) == 0


def test_background_centres_lie_inside_of_the_scan_and_on_no_structure(toys):
    case, outside = two_structures(toys)
    patches = Patches((1, 1), foreground=0.5, background="background")
    seen = Counter()
    for s in range(400):
        patch = cut(case, patches, DOMAINS, seeded(4, s))
        seen[int(patch.extra["drawn"])] += 1
        assert patch.extra["centre"] == patch.extra["drawn"]
        assert patch.image.item() != -1.5
    assert abs(seen[0] - 200) < 50
    assert outside.mean() > 0.3  # so that by chance many would have been outside


def test_where_nothing_surrounds_a_scan_all_of_it_is_inside():
    image = np.random.default_rng(0).normal(size=(1, 6, 6, 6)).astype(np.float32)
    places = np.argwhere(image[0] > 0)
    assert np.array_equal(inside(image, places), places)


def test_beyond_its_border_an_image_may_go_on_with_the_borders_values(source):
    size = tuple(n + 6 for n in source[0].image.shape[1:3])
    patch = cut(source[0], Patches(size, beyond="border"), DOMAINS, seeded(0))
    assert torch.equal(patch.image[..., 0, :], patch.image[..., 3, :])
    assert patch.extra["ignore"][0, :3].all()


@pytest.mark.parametrize("foreground", [1.2, {1: 0.7, 2: 0.4}, {1: -0.1}])
def test_shares_that_are_none_are_refused(foreground):
    with pytest.raises(OptionError, match="share between 0 and 1, or one of each structure, up to 1 together"):
        Patches((8, 8), foreground=foreground)


def test_what_was_drawn_leaves_with_the_label(source):
    patch = cut(source[0], Patches((8, 8)), DOMAINS, seeded(0))
    assert "drawn" in patch.extra
    assert "drawn" not in patch.without_labels().extra


def test_the_middle_of_samples_is_cut_from_all_that_has_their_space(source):
    samples = cut(source[0], Patches((8, 6)), DOMAINS, seeded(0))
    middle = samples.central((4, 6))
    assert torch.equal(middle.image, samples.image[:, :, 2:6])
    assert torch.equal(middle.label, samples.label[:, 2:6])
    assert torch.equal(middle.extra["ignore"], samples.extra["ignore"][:, 2:6])
    assert torch.equal(middle.extra["annotated"], samples.extra["annotated"])


def test_target_cases_with_labels_are_refused(toys, source):
    with pytest.raises(SplitError, match="without labels"):
        feed(source, target=toys.cases("t", 1))


def test_training_cases_without_labels_are_refused(toys):
    with pytest.raises(SplitError, match="without a label: d00"):
        feed(toys.cases("d0", 1, labelled=False))


def test_a_batch_too_small_for_the_domains_is_refused(source):
    with pytest.raises(OptionError, match="at least 3"):
        feed(source, batches="balanced", size=2)


def test_no_case_at_all_is_named():
    with pytest.raises(SplitError, match="no training case"):
        feed([])


@pytest.mark.parametrize("size", [3, 4, 5, 9])
def test_balanced_batches_draw_each_subject_of_a_domain_equally_often(toys, size):
    f = feed([c for i, d in enumerate(DOMAINS) for c in toys.cases(d, 4, seed=i)], batches="balanced", size=size)
    total = Counter(s for index in range(48) for s in f.batch(index).source.subject)
    assert max(total.values()) - min(total.values()) <= 1


@pytest.mark.parametrize(("size", "source"), [((8, 8), (12, 11)), ((6, 6, 4), (8, 9, 4))])
def test_a_larger_source_has_the_patch_in_its_middle(toys, size, source):
    case = toys.cases("d0", 1, seed=0)[0]
    for seed in range(6):
        patch = cut(case, Patches(size, 0.5), ["d0"], seeded(seed))
        wide = cut(case, Patches(size, 0.5, source=source), ["d0"], seeded(seed))
        margins = [-(-(s - w) // 2) for s, w in zip(source, size, strict=True)]
        middle = tuple(slice(m, m + w) for m, w in zip(margins, size, strict=True))
        assert wide.image.shape[2:] == tuple(w + 2 * m for w, m in zip(size, margins, strict=True))
        assert torch.equal(wide.image[(..., *middle)], patch.image)
        assert torch.equal(wide.label[(..., *middle)], patch.label)
        assert torch.equal(wide.extra["ignore"][(..., *middle)], patch.extra["ignore"])
        assert torch.equal(wide.extra["centre"], patch.extra["centre"])
