"""Torch's own database of optimizers drives these tests; `torch_database` enters our members in it.

The tests are the generic ones every optimizer of torch has to pass, written anew on a linear layer, because some of our
optimizers read layer inputs. Settings come from the members of the contract; those with a closure are tested there.
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau, StepLR
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.testing._internal.common_device_type import instantiate_device_type_tests
from torch.testing._internal.common_optimizers import OptimizerErrorEnum, optims
from torch.testing._internal.common_utils import TestCase, run_tests

from .torch_database import MemberInfo, build, free_of, ours, problem, sign_of


class TestOptimizers(TestCase):
    """One method a promise; `optims` makes a test of each for every class."""

    def cases(self, info: MemberInfo, device: str, dtype: torch.dtype) -> Iterator[tuple[Any, Any, Any, Any]]:
        for case in info.optim_inputs_func(device=device, dtype=dtype):
            print("common keywords:", case.desc)  # shown by pytest when the test fails: its last line names the case
            module, loss = problem(device, dtype)
            yield case.kwargs, module, loss, build(info, module, case.kwargs)

    def train(self, optimizer: torch.optim.Optimizer, loss: Any, steps: int) -> None:
        for _ in range(steps):
            loss()
            optimizer.step()

    def continues_alike(self, pairs: list[tuple[Any, Any, Any]], steps: int = 3) -> None:
        """Both (module, loss, optimizer) triples end in the same weights after `steps` more steps."""
        for _, loss, optimizer in pairs:
            self.train(optimizer, loss, steps)
        ours, theirs = (list(module.parameters()) for module, _, _ in pairs)
        self.assertEqual(ours, theirs, rtol=0, atol=0)

    @optims(ours(), dtypes=[torch.float32])
    def test_construction_errors(self, device: str, dtype: torch.dtype, optim_info: MemberInfo) -> None:
        for case in optim_info.optim_error_inputs_func(device=device, dtype=dtype):
            self.assertIs(case.error_on, OptimizerErrorEnum.CONSTRUCTION_ERROR)
            bad = case.optimizer_error_input
            params = [nn.Parameter(torch.zeros(1, 1))] if bad.params is None else bad.params
            kwargs = {**bad.kwargs, **(free_of(params) if optim_info.member.model else {})}
            if issubclass(case.error_type, Warning):
                with self.assertWarnsRegex(case.error_type, case.error_regex):
                    optim_info.optim_cls(params, **kwargs)
            else:
                with self.assertRaisesRegex(case.error_type, case.error_regex):
                    optim_info.optim_cls(params, **kwargs)

    @optims(ours(), dtypes=[torch.float32])
    def test_the_loss_goes_the_right_way(self, device: str, dtype: torch.dtype, optim_info: MemberInfo) -> None:
        for kwargs, _, loss, optimizer in self.cases(optim_info, device, dtype):
            first = loss()
            self.train(optimizer, loss, 15)
            self.assertGreater(sign_of(kwargs) * (first - loss()), 0)

    @optims(ours(), dtypes=[torch.float32])
    def test_the_loss_goes_the_right_way_under_schedulers(
        self, device: str, dtype: torch.dtype, optim_info: MemberInfo
    ) -> None:
        for make_all in optim_info.scheduler_inputs:
            module, loss = problem(device, dtype)
            kwargs = optim_info.optim_inputs_func(device=device)[0].kwargs
            optimizer = build(optim_info, module, kwargs)
            schedulers = [make(optimizer) for make in make_all]
            first = loss()
            for _ in range(15):
                value = loss()
                optimizer.step()
                for scheduler in schedulers:
                    scheduler.step(*([value] if isinstance(scheduler, ReduceLROnPlateau) else []))
            self.assertLess(loss(), first)

    @optims(ours(), dtypes=[torch.float32])
    def test_groups_under_a_scheduler_go_the_right_way(
        self, device: str, dtype: torch.dtype, optim_info: MemberInfo
    ) -> None:
        module, loss = problem(device, dtype)
        groups = [{"params": [module.weight]}, {"params": [module.bias], "lr": 0.01}]
        kwargs = optim_info.optim_inputs_func(device=device)[0].kwargs
        optimizer = build(optim_info, module, {"lr": 0.02, **kwargs}, groups)
        scheduler = ExponentialLR(optimizer, 0.9)
        first = loss()
        for _ in range(20):
            loss()
            optimizer.step()
            scheduler.step()
        self.assertLess(loss(), first)

    @optims(ours(), dtypes=[torch.float32])
    def test_tensor_lr_of_any_dimension(self, device: str, dtype: torch.dtype, optim_info: MemberInfo) -> None:
        ends = []
        for lr in (0.0078125, torch.tensor(0.0078125), torch.tensor([0.0078125]), torch.tensor([[0.0078125]])):
            module, loss = problem(device, dtype)
            kwargs = optim_info.optim_inputs_func(device=device)[0].kwargs
            optimizer = build(optim_info, module, {**kwargs, "lr": lr})
            self.train(optimizer, loss, 5)
            self.assertEqual(type(optimizer.param_groups[0]["lr"]), type(lr))
            ends.append([parameter.detach() for parameter in module.parameters()])
        for end in ends[1:]:
            self.assertEqual(end, ends[0])

    @optims(ours(), dtypes=[torch.float32])
    def test_a_tensor_lr_follows_a_scheduler(self, device: str, dtype: torch.dtype, optim_info: MemberInfo) -> None:
        ends = []
        for lr in (0.0078125, torch.tensor(0.0078125)):
            module, loss = problem(device, dtype)
            kwargs = optim_info.optim_inputs_func(device=device)[0].kwargs
            optimizer = build(optim_info, module, {**kwargs, "lr": lr})
            scheduler = StepLR(optimizer, step_size=2, gamma=0.5)
            for _ in range(6):
                loss()
                optimizer.step()
                scheduler.step()
            ends.append([parameter.detach() for parameter in module.parameters()])
        self.assertEqual(*ends)

    @optims(ours(resting=True), dtypes=[torch.float32])
    def test_zero_gradients_are_a_no_op(self, device: str, dtype: torch.dtype, optim_info: MemberInfo) -> None:
        for kwargs, module, loss, optimizer in self.cases(optim_info, device, dtype):
            old = [parameter.detach().clone() for parameter in module.parameters()]
            loss(0.0)
            optimizer.step()
            factor = 1 - float(optimizer.param_groups[0]["lr"]) * kwargs.get("weight_decay", 0.0)
            self.assertEqual(list(module.parameters()), [factor * value for value in old], rtol=1e-7, atol=0)

    @optims(ours(), dtypes=[torch.float32])
    def test_no_gradients_are_a_no_op(self, device: str, dtype: torch.dtype, optim_info: MemberInfo) -> None:
        for _, module, _, optimizer in self.cases(optim_info, device, dtype):
            old = [parameter.detach().clone() for parameter in module.parameters()]
            optimizer.step()
            self.assertEqual(list(module.parameters()), old, rtol=0, atol=0)

    @optims(ours(), dtypes=[torch.float32])
    def test_groups_have_their_own_weight_decay(self, device: str, dtype: torch.dtype, optim_info: MemberInfo) -> None:
        ends = []
        for decay in (0.0, 0.5):
            module, loss = problem(device, dtype)
            groups = [{"params": [module.weight], "weight_decay": decay}, {"params": [module.bias]}]
            kwargs = optim_info.optim_inputs_func(device=device)[0].kwargs
            self.train(build(optim_info, module, {**kwargs, "lr": 0.01, "weight_decay": 0.0}, groups), loss, 1)
            ends.append(module)
        self.assertEqual(ends[0].bias, ends[1].bias, rtol=0, atol=0)
        start, _ = problem(device, dtype)
        self.assertEqual(ends[0].weight - ends[1].weight, 0.01 * 0.5 * start.weight, rtol=1e-4, atol=1e-6)

    @optims(ours(), dtypes=[torch.float32])
    def test_groups_have_their_own_lr(self, device: str, dtype: torch.dtype, optim_info: MemberInfo) -> None:
        for kwargs, module, loss, _ in self.cases(optim_info, device, dtype):
            old = [parameter.detach().clone() for parameter in module.parameters()]
            groups = [{"params": [module.weight], "lr": 0.0}, {"params": [module.bias]}]
            self.train(build(optim_info, module, kwargs, groups), loss, 3)
            self.assertEqual(module.weight, old[0], rtol=0, atol=0)
            self.assertNotEqual(module.bias, old[1])

    @optims(ours(), dtypes=[torch.float32])
    def test_the_optimizer_prints(self, device: str, dtype: torch.dtype, optim_info: MemberInfo) -> None:
        for _, _, loss, optimizer in self.cases(optim_info, device, dtype):
            self.assertIn(optim_info.optim_cls.__name__, repr(optimizer))
            self.train(optimizer, loss, 1)
            self.assertIn("Parameter Group 0", repr(optimizer))

    @optims(ours(), dtypes=[torch.float32])
    def test_state_dict_round_trip(self, device: str, dtype: torch.dtype, optim_info: MemberInfo) -> None:
        for kwargs, module, loss, optimizer in self.cases(optim_info, device, dtype):
            self.train(optimizer, loss, 3)
            file = io.BytesIO()
            torch.save(optimizer.state_dict(), file)
            file.seek(0)
            loaded = torch.load(file, weights_only=True)
            self.assertEqual(loaded, optimizer.state_dict(), rtol=0, atol=0)
            twin, its_loss = problem(device, dtype)
            twin.load_state_dict(module.state_dict())
            other = build(optim_info, twin, kwargs)
            other.load_state_dict(loaded)
            self.assertEqual(other.state_dict(), optimizer.state_dict(), rtol=0, atol=0)
            self.continues_alike([(module, loss, optimizer), (twin, its_loss, other)])

    @optims(ours(), dtypes=[torch.float32])
    def test_checkpoints_load_with_and_without_names(
        self, device: str, dtype: torch.dtype, optim_info: MemberInfo
    ) -> None:
        for kwargs, module, loss, optimizer in self.cases(optim_info, device, dtype):
            self.train(optimizer, loss, 2)
            twin, its_loss = problem(device, dtype)
            twin.load_state_dict(module.state_dict())
            named = build(optim_info, twin, kwargs, twin.named_parameters())
            named.load_state_dict(optimizer.state_dict())
            self.assertEqual(named.param_groups[0]["param_names"], ["weight", "bias"])
            optimizer.load_state_dict(named.state_dict())
            self.continues_alike([(module, loss, optimizer), (twin, its_loss, named)])

    @optims(ours(), dtypes=[torch.float32])
    def test_state_is_not_empty_after_a_step(self, device: str, dtype: torch.dtype, optim_info: MemberInfo) -> None:
        for _, module, loss, optimizer in self.cases(optim_info, device, dtype):
            self.train(optimizer, loss, 1)
            self.assertEqual(set(optimizer.state), set(module.parameters()))
            self.assertTrue(all(len(state) > 0 for state in optimizer.state.values()))

    @optims(ours(), dtypes=[torch.float32])
    def test_step_hooks(self, device: str, dtype: torch.dtype, optim_info: MemberInfo) -> None:
        for _, _, loss, optimizer in self.cases(optim_info, device, dtype):
            calls: list[int] = []
            handles = [
                register_optimizer_step_pre_hook(lambda *_, c=calls: c.append(0)),
                optimizer.register_step_pre_hook(lambda *_, c=calls: c.append(1)),
                optimizer.register_step_post_hook(lambda *_, c=calls: c.append(2)),
                register_optimizer_step_post_hook(lambda *_, c=calls: c.append(3)),
            ]
            self.train(optimizer, loss, 2)
            for handle in handles:
                handle.remove()
            self.train(optimizer, loss, 1)
            self.assertEqual(calls, [0, 1, 2, 3] * 2)

    @optims(ours(), dtypes=[torch.float32])
    def test_state_dict_hooks(self, device: str, dtype: torch.dtype, optim_info: MemberInfo) -> None:
        for _, _, loss, optimizer in self.cases(optim_info, device, dtype):
            self.train(optimizer, loss, 1)
            calls: list[str] = []
            optimizer.register_state_dict_pre_hook(lambda _, c=calls: c.append("before saving"))
            optimizer.register_state_dict_post_hook(lambda _, tree: {**tree, "note": 7})
            optimizer.register_load_state_dict_pre_hook(lambda _, tree: {k: v for k, v in tree.items() if k != "note"})
            optimizer.register_load_state_dict_post_hook(lambda _, c=calls: c.append("after loading"))
            tree = optimizer.state_dict()
            self.assertEqual(tree["note"], 7)
            optimizer.load_state_dict(tree)
            self.assertEqual(calls, ["before saving", "after loading"])

    @optims(ours(), dtypes=[torch.float32])
    def test_deepcopy_copies_every_public_attribute(
        self, device: str, dtype: torch.dtype, optim_info: MemberInfo
    ) -> None:
        for _, _, loss, optimizer in self.cases(optim_info, device, dtype):
            self.train(optimizer, loss, 2)
            twin = copy.deepcopy(optimizer)
            public = {name for name in vars(optimizer) if not name.startswith("_")}
            self.assertEqual([name for name in public if not hasattr(twin, name)], [])
            self.assertEqual(twin.state_dict(), optimizer.state_dict(), rtol=0, atol=0)

    @optims(ours(), dtypes=[torch.float32])
    def test_a_step_warns_of_nothing(self, device: str, dtype: torch.dtype, optim_info: MemberInfo) -> None:
        for _, _, loss, optimizer in self.cases(optim_info, device, dtype):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                self.train(optimizer, loss, 2)


instantiate_device_type_tests(TestOptimizers, globals(), only_for="cpu")

if __name__ == "__main__":
    run_tests()
