"""Run cases, judge them, print one JSON line each."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from golden import (
    attentive_probes,
    cae,
    cae_classify,
    capi,
    classify,
    convmae,
    crate,
    crossmae,
    data2vec2,
    fullsize,
    functions,
    ijepa,
    latent_tables,
    latent_trajectory,
    mae,
    maskalign,
    nerf,
    pixio,
    point_downstream,
    points,
    rae,
    rae_trajectory,
    sae,
    tables,
    trajectory,
    video,
    video_tables,
    vjepa,
    vjepa_tables,
)
from golden.case import Case, CaseFault
from golden.judge import dumped, judge
from golden.report import FAIL, FAULT, NOT_BUILT, PASS, Report
from golden.results import Results

KINDS: dict[str, Callable[[Case], Results]] = {
    "image/mae": mae.pretrain,
    "image/mae-vit": classify.classify,
    "image/mae-fullsize": fullsize.pretrain,
    "image/mae-vit-fullsize": fullsize.finetune,
    "image/convmae": convmae.pretrain,
    "image/crate": crate.classify,
    "image/crate-mae": crate.pretrain,
    "image/mae-traj": trajectory.pretrain,
    "image/mae-ft-traj": trajectory.finetune,
    "image/cae": cae.pretrain,
    "image/cae-lxt": cae.pretrain_first_layout,
    "image/caev2": cae.pretrain_v2,
    "image/cae-fullsize": cae.fullsize,
    "image/cae-ft": cae_classify.finetune,
    "image/cae-attentive": cae_classify.attentive,
    "image/dalle-encoder": cae.dalle_encoder,
    "image/blockmask-stats": cae.block_masks,
    "image/cae-traj": trajectory.cae_pretrain,
    "image/maskalign": maskalign.pretrain,
    "image/maskalign-sampling": maskalign.sampling,
    "latent/ijepa": ijepa.pretrain,
    "latent/ijepa-masks": ijepa.masks,
    "latent/ijepa-mask-stats": latent_tables.mask_statistics,
    "latent/ijepa-traj": latent_trajectory.ijepa_pretrain,
    "latent/data2vec2": data2vec2.pretrain,
    "latent/data2vec2-ft": data2vec2.finetune,
    "latent/data2vec2-masks": data2vec2.masks,
    "latent/data2vec2-mask-stats": latent_tables.mask_statistics,
    "latent/data2vec2-traj": latent_trajectory.data2vec2_pretrain,
    "latent/capi": capi.pretrain,
    "latent/capi-eval": capi.encode,
    "latent/capi-attnpool": attentive_probes.query,
    "latent/capi-masks": capi.masks,
    "latent/capi-mask-stats": latent_tables.mask_statistics,
    "latent/capi-traj": latent_trajectory.capi_pretrain,
    "latent/schedules": latent_tables.schedules,
    "latent/param-groups": latent_tables.parameter_groups,
    "latent/state-dict-keys": latent_tables.keys,
    "latent/vjepa": vjepa.pretrain,
    "latent/vjepa-clip-indices": vjepa_tables.clips,
    "latent/vjepa-encoder": vjepa.encode,
    "latent/vjepa-probe": attentive_probes.blocks,
    "latent/vjepa-traj": latent_trajectory.vjepa_pretrain,
    "latent/vjepa-masks": vjepa_tables.masks,
    "latent/vjepa-mask-stats": vjepa_tables.mask_statistics,
    "latent/vjepa-rope": vjepa_tables.rotary,
    "latent/vjepa-sincos": vjepa_tables.positions,
    "latent/vjepa-schedules": vjepa_tables.schedules,
    "latent/vjepa-groups": vjepa_tables.groups,
    "latent/vjepa-state-dict-keys": vjepa_tables.keys,
    "video/pretrain": video.pretrain,
    "video/finetune": video.finetune,
    "video/pretrain-traj": trajectory.video_pretrain,
    "video/masks": video_tables.masks,
    "video/sinusoid": video_tables.sinusoids,
    "video/sampling": video_tables.sampling,
    "point/funcs": points.functions,
    "point/mae": points.mae,
    "point/cmae": points.cmae,
    "point/pcp": points.pcp,
    "point/pcp_cls": point_downstream.classify_pcp,
    "point/cls": point_downstream.classify,
    "point/cls_linear": point_downstream.classify,
    "point/seg": point_downstream.segment,
    "point/cmae-traj": trajectory.point_pretrain,
    "point/lr_schedule": tables.point_rates,
    "nerf/nerf-mae": nerf.pretrain,
    "nerf/pure": nerf.functions,
    "nerf/extract": nerf.extract,
    "efficient/crossmae": crossmae.pretrain,
    "efficient/crossmae-traj": trajectory.crossmae_pretrain,
    "efficient/crossmae-counts": tables.mask_counts,
    "efficient/crossmae-sincos": tables.positions,
    "efficient/pixio": pixio.pretrain,
    "efficient/pixio-distill": pixio.distill,
    "efficient/pixio-encoder": pixio.encode,
    "efficient/optim": tables.optimizer,
    "efficient/state-dict-keys": tables.keys,
    "image/linprobe": functions.linear_probe,
    "image/lars": functions.lars,
    "image/sincos-pos-embed": tables.positions,
    "image/lr-schedules": tables.rates,
    "image/layer-decay-groups": tables.parameter_groups,
    "image/len-keep": tables.kept_tokens,
    "image/state-dict-keys": tables.keys,
    **{f"sae/{variant}": sae.step_forward for variant in sae.VARIANTS},
    **{f"sae/{variant}-traj": sae.trajectory for variant in sae.VARIANTS},
    "sae/functions": sae.functions,
    "rae/autoencoder": rae.autoencoder,
    "rae/traj": rae_trajectory.trajectory,
    "rae/gan-traj": rae_trajectory.trajectory,
    "rae/discriminator": rae.discriminator,
    "rae/lpips": rae.lpips,
    "rae/simvq": rae.simvq,
    "rae/functions": rae.functions,
}


def check(path: Path, dump: Path | None = None) -> Report:
    """Run one case; ``dump`` receives everything computed, and makes answers optional."""
    begun, report = time.monotonic(), Report(path.stem)
    try:
        case = Case.read(path)
        report.kind = case.kind
        report.table = "table" in case.document
        if case.kind not in KINDS:
            raise CaseFault(f"kind: '{case.kind}' is unknown")
        for name in ("mode", "hparams", "inputs", *(() if dump else ("compare",))):
            case.field(name)
        results = KINDS[case.kind](case)
        if unread := case.hparams.unread():
            raise CaseFault(f"hparams.{unread[0]}: not understood")
        judge(case, results, report, answers_needed=dump is None)
        if dump is not None:
            _write(dumped(case, results), dump)
    except CaseFault as fault:
        report.verdict, report.error = "fault", str(fault)
    except Exception as error:  # a product that cannot run the case has failed it
        report.verdict = "fail"
        report.error = f"{type(error).__name__}: {' '.join(str(error).split())}"
    report.seconds = time.monotonic() - begun
    return report


def _write(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(tensors, path)
    except (OSError, SafetensorError) as error:
        raise CaseFault(f"--dump {path}: {error}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Check cases. Exit code: 2 if one cannot be run, else 1 if one fails, else 3 if part of one
    is not built, else 0."""
    parser = argparse.ArgumentParser(
        prog="check_golden.py",
        description="Check the suite against reference tensors; one JSON line a case.",
        epilog="exit codes: 0 pass, 1 fail, 2 a case cannot be run, 3 something is not built",
    )
    parser.add_argument("cases", nargs="+", type=Path, metavar="CASE.json")
    parser.add_argument(
        "--dump",
        type=Path,
        metavar="OUT.safetensors",
        help="write what was computed, under the case's tensor names; one case only. The case "
        "needs no answers then",
    )
    options = parser.parse_args(arguments)
    if options.dump is not None and len(options.cases) != 1:
        parser.error("--dump takes exactly one case")
    codes = []
    for path in options.cases:
        report = check(path, options.dump)
        print(report.line(), flush=True)
        if report.error:
            print(f"{path}: {report.error}", file=sys.stderr)
        codes.append(report.exit_code)
    return next((code for code in (FAULT, FAIL, NOT_BUILT) if code in codes), PASS)
