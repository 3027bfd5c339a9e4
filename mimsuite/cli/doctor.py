"""`mimsuite doctor`: what this machine has, what it lacks, and what a recipe needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mimsuite.cli.options import DataOption, JsonOption, OverridesArgument, SmokeOption
from mimsuite.cluster import require_single_process
from mimsuite.errors import UserError

if TYPE_CHECKING:
    from mimsuite.config import Resolved
    from mimsuite.doctor import Finding
    from mimsuite.train.cost_plan import Plan

_REMOTE = ("s3:", "https:", "http:")


def doctor(
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="[RECIPE]", help="Recipe name or YAML file.", show_default=False),
    ] = None,
    overrides: OverridesArgument = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Plan for N GPUs, here or elsewhere.")
    ] = None,
    memory_gb: Annotated[
        float | None, typer.Option(min=0.1, metavar="GB", help="Memory of each device.")
    ] = None,
    peak_tflops: Annotated[
        float | None, typer.Option(min=1e-3, metavar="X", help="Peak of each device, TFLOP/s.")
    ] = None,
    utilisation: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Share of the peak that training reaches.")
    ] = 0.4,
    data: DataOption = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also measure the disk of this folder.")
    ] = None,
    smoke: SmokeOption = False,
    as_json: JsonOption = False,
) -> int:
    """Check this machine; with RECIPE, estimate the cost of training by it.

    Exit code 0: nothing needed is missing; 2: something is missing, and the output says how to
    install it.

    Example: mimsuite doctor image/mae-vitb16-in1k --gpus 8 --memory-gb 80 --peak-tflops 989
    """
    from mimsuite.cli.output import print_json
    from mimsuite.report.doctor import findings_table
    from mimsuite.report.files import jsonable

    require_single_process()
    result: dict[str, Any] = {}
    if recipe is None:
        _refuse_without_recipe(overrides, gpus, memory_gb, peak_tflops, smoke)
        findings = _machine()
    else:
        plan, findings = _plan(
            _resolved(recipe, overrides, data, smoke), gpus, memory_gb, peak_tflops, utilisation
        )
        result["plan"] = plan.as_dict()
    findings += _places(data, out)
    findings_table(findings)
    complete = all(one.state != "missing" for one in findings)
    if as_json:
        listed = [one.as_dict() for one in findings]
        print_json(jsonable({**result, "findings": listed, "complete": complete}))
    return 0 if complete else 2


def _machine() -> list[Finding]:
    from mimsuite.doctor import check_engine, check_machine, check_packages

    return [*check_packages(), *check_engine(), *check_machine()]


def _resolved(recipe: str, overrides: list[str] | None, data: str | None, smoke: bool) -> Resolved:
    from mimsuite import config

    resolved = config.load(recipe, overrides or [], smoke=smoke)
    if data is None:
        return resolved
    resolved = config.with_overrides(resolved, {"data.source": data})
    if not data.startswith(_REMOTE):  # remote stores are checked and reported with the machine
        from mimsuite.data import open_training_set

        open_training_set(resolved.recipe)
    return resolved


def _plan(
    resolved: Resolved,
    gpus: int | None,
    memory_gb: float | None,
    peak_tflops: float | None,
    utilisation: float,
) -> tuple[Plan, list[Finding]]:
    """Print the plan; return it with the findings that prevent it on this machine."""
    from mimsuite.doctor import Finding, check_limits
    from mimsuite.report.dry_run import out_of_room, plan_table
    from mimsuite.train.cost_plan import make_plan, planned_devices

    devices = planned_devices(resolved.recipe, gpus, memory_gb)
    plan = make_plan(resolved, devices, utilisation=utilisation, peak_tflops=peak_tflops)
    plan_table(resolved, plan)
    findings = check_limits(resolved.recipe.data.workers, plan.batch_bytes)
    if plan.fits is False:
        fault, _, mend = out_of_room(plan).partition(": ")
        findings.insert(0, Finding("device memory", "missing", fault, mend))
    return plan, findings


def _places(data: str | None, out: Path | None) -> list[Finding]:
    """Findings on the disk and network that were named."""
    from mimsuite.doctor import check_disk, check_store

    found = []
    if out is not None:
        found.append(check_disk(out))
    if data is not None and data.startswith(_REMOTE):
        found.append(check_store(data))
    return found


def _refuse_without_recipe(
    overrides: list[str] | None,
    gpus: int | None,
    memory_gb: float | None,
    peak_tflops: float | None,
    smoke: bool,
) -> None:
    given: dict[str, object] = {
        "--gpus": gpus,
        "--memory-gb": memory_gb,
        "--peak-tflops": peak_tflops,
        "--smoke": smoke or None,
        "KEY=VALUE": overrides or None,
    }
    for name, value in given.items():
        if value is not None:
            raise UserError(f"{name} needs a recipe: mimsuite doctor RECIPE {name} ...")
