"""A limit of tokens, with real turns of a real model."""

import pytest

from benchmarks.kernel import RunningKernel
from kernos.syscalls.errors import DeniedError, LimitError
from kernos.syscalls.model import Generate, Message
from kernos.syscalls.process import GetUsage, Nice, SetLimits

ASK = Generate(model="smollm2-135m", messages=[Message("user", "Hello?")], max_tokens=4, ignore_eos=True)


def test_a_user_out_of_tokens_waits_and_others_do_not(kernel: RunningKernel) -> None:
    key = kernel.enroll("app:customer_service")
    with kernel.connect() as admin, kernel.connect(key) as app:
        ola, pia = app.spawn("clerk", user="user:ola"), app.spawn("clerk", user="user:pia", priority="interactive")
        admin.call(SetLimits(principal="user:ola", limits={"tokens_per_minute": 6}))
        spent = ola.call(ASK).usage  # the bucket was full, so it may begin, and once begun it is not cut
        tokens = ola.call(GetUsage(principal="user:ola")).meters[0]
        assert (tokens.limit, tokens.allowed, tokens.window_s) == ("tokens_per_minute", 6, 60.0)
        debt = spent.prompt_tokens + spent.generated_tokens
        assert debt - 2 <= tokens.used <= debt, "some have flowed in since"
        with pytest.raises(LimitError, match="user:ola has used up its limit `tokens_per_minute`") as refused:
            ola.call(ASK)
        assert refused.value.details["principal"] == "user:ola"
        assert refused.value.retry_after == pytest.approx(10.0 * debt, abs=20.0), "ten seconds for each token"
        pia.call(ASK)
        with pytest.raises(DeniedError):
            app.call(SetLimits(principal="user:ola", limits={}))
        admin.call(SetLimits(principal="user:ola", limits={}))
        assert ola.call(ASK).usage == spent
        pia.call(Nice(pid=pia.pid, priority="batch"), urgent=True)
