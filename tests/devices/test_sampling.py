"""The draw: its distribution, its limits, and what it depends on."""

import torch

from kernos.kernel.devices.messages import Sampling
from kernos.kernel.devices.sampling import choose

LOGITS = torch.tensor([0.5, 2.0, 1.0, float("-inf"), 0.0])


def draws(sampling: Sampling, count: int = 2000) -> torch.Tensor:
    tokens = choose(LOGITS.expand(count, -1), [(sampling, position) for position in range(count)])
    return torch.bincount(torch.tensor(tokens), minlength=len(LOGITS)) / count


def test_greedy_takes_the_best_of_each_row() -> None:
    logits = torch.randn(50, 100, generator=torch.Generator().manual_seed(1))
    assert choose(logits, [(Sampling(), 0)] * 50) == logits.argmax(-1).tolist()


def test_frequencies_follow_the_distribution() -> None:
    torch.testing.assert_close(draws(Sampling(temperature=1.0)), torch.softmax(LOGITS, -1), atol=0.03, rtol=0)
    torch.testing.assert_close(draws(Sampling(temperature=2.0)), torch.softmax(LOGITS / 2, -1), atol=0.03, rtol=0)


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    shares = torch.softmax(LOGITS, -1)  # 0.13, 0.58, 0.21, 0, 0.08
    seen = draws(Sampling(temperature=1.0, top_p=0.7))
    assert seen.nonzero().flatten().tolist() == [1, 2]
    torch.testing.assert_close(seen[1], shares[1] / (shares[1] + shares[2]), atol=0.03, rtol=0)
    assert draws(Sampling(temperature=1.0, top_p=0.5), 50)[1] == 1


def test_a_forbidden_token_is_never_drawn_and_a_tiny_temperature_is_greedy() -> None:
    assert draws(Sampling(temperature=50.0))[3] == 0
    assert draws(Sampling(temperature=1e-300), 20)[1] == 1


def test_a_draw_depends_on_seed_and_position_not_on_its_row() -> None:
    logits = LOGITS.expand(30, -1)
    how = [(Sampling(temperature=1.0, seed=4), position) for position in range(30)]
    tokens = choose(logits, how)
    assert choose(logits, how[::-1]) == tokens[::-1]
    assert choose(logits, [(Sampling(temperature=1.0, seed=5), position) for position in range(30)]) != tokens
