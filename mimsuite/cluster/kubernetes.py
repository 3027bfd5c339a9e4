"""A recipe as a JobSet of Kubernetes: torchrun on every node, started again until it is done.

The manifest is only rendered; ``kubectl apply -f`` sends it. Its run directory lies on a volume
that all nodes mount. Needs the JobSet controller (jobset.x-k8s.io). Does not import torch.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import yaml

from mimsuite import config
from mimsuite.cluster.profile import Profile
from mimsuite.cluster.sbatch import Element
from mimsuite.cluster.submission import Request, check_recipes, words_of
from mimsuite.config import catalog
from mimsuite.errors import UserError

_PORT = 29500  # where rank 0 waits for the others
_RECIPE = PurePosixPath("/etc/mimsuite")  # where a recipe file of the user is mounted
_WRONG_INPUT = [2, 3]  # exit codes that the same start would give again
_LONGEST_NAME = 40  # 63 are allowed; the rest is for the names of pods


@dataclass(frozen=True)
class Volume:
    """A persistent volume claim, and the folder where each process sees it."""

    claim: str
    path: PurePosixPath

    @classmethod
    def of(cls, text: str) -> Volume:
        """From ``CLAIM:/path``.

        Raises:
            UserError: it is written in another way.
        """
        claim, _, path = text.partition(":")
        if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", claim) or not path.startswith("/"):
            raise UserError(f"--volume {text!a}: expected CLAIM:/path, as in shared:/data")
        return cls(claim, PurePosixPath(path))


def render(request: Request, profile: Profile, image: str, volumes: Sequence[Volume]) -> str:
    """The manifest as YAML: a JobSet, and a ConfigMap where the recipe is a file of the user.

    Args:
        request: its data and run directory are paths as the processes see them.
        profile: nodes, processes or GPUs a node, processors, restarts and seconds to save.
        image: the container image, in which ``mimsuite`` and ``torchrun`` are installed.

    Raises:
        UserError: lists all faults of the recipe; or the run directory is on no volume.
    """
    if not re.fullmatch(r"[\w.:/@-]+", image, re.ASCII):
        raise UserError(f"--image {image!a}: expected a name, as in registry/mimsuite:0.2")
    out = PurePosixPath(request.out)
    if not any(out.is_relative_to(one.path) and out != one.path for one in volumes):
        raise UserError(
            f"--out {out}: its folder must be on a volume that stays and that all nodes see; add "
            f"--volume CLAIM:/path and an --out below it"
        )
    name = _name(out.name)
    resolved = check_recipes(request, profile, [Element(request.out)])
    file = catalog.find(request.recipe)
    own = file.name not in catalog.names()
    recipe = str(_RECIPE / "recipe.yaml") if own else file.name
    words = [*words_of(request, profile, resolved.recipe, recipe), "--out", str(out)]
    cpus = profile.tasks * (profile.cpus_per_task or resolved.recipe.data.workers + 1)
    documents = [_job_set(name, profile, image, volumes, _script(name, profile, words), cpus, own)]
    if own:
        text = config.load(file.path).yaml()
        documents.insert(0, _config_map(name, text))
    return "---\n".join(yaml.dump(one, Dumper=_Dumper, sort_keys=False) for one in documents)


def _job_set(
    name: str,
    profile: Profile,
    image: str,
    volumes: Sequence[Volume],
    script: str,
    cpus: int,
    own_recipe: bool,
) -> dict[str, Any]:
    claims = [
        (f"volume-{number}", {"persistentVolumeClaim": {"claimName": one.claim}}, one.path)
        for number, one in enumerate(volumes)
    ]
    mounts = [("memory", {"emptyDir": {"medium": "Memory"}}, PurePosixPath("/dev/shm")), *claims]
    if own_recipe:
        mounts.append(("recipe", {"configMap": {"name": name}}, _RECIPE))
    gpus = {"nvidia.com/gpu": profile.gpus_per_node} if profile.gpus_per_node else {}
    container = {
        "name": "train",
        "image": image,
        "command": ["bash", "-c", script],
        "ports": [{"containerPort": _PORT}],
        "resources": {"requests": {"cpu": cpus}, **({"limits": gpus} if gpus else {})},
        "volumeMounts": [{"name": key, "mountPath": str(path)} for key, _, path in mounts],
    }
    if profile.environment:
        container["env"] = [{"name": k, "value": str(v)} for k, v in profile.environment.items()]
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": int(profile.signal.partition("@")[2]),
        "containers": [container],
        "volumes": [{"name": key, **source} for key, source, _ in mounts],
    }
    job = {
        "completionMode": "Indexed",
        "completions": profile.nodes,
        "parallelism": profile.nodes,
        "backoffLimit": 0,  # one lost node ends the start of all
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": "train",
                        "operator": "In",
                        "values": _WRONG_INPUT,
                    },
                }
            ]
        },
        "template": {"spec": pod},
    }
    rule = {
        "name": "wrongInput",
        "action": "FailJobSet",
        "onJobFailureReasons": ["PodFailurePolicy"],
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": name},
        "spec": {
            "network": {"enableDNSHostnames": True},
            "failurePolicy": {
                "maxRestarts": profile.max_requeues if profile.requeue else 0,
                "rules": [rule],
            },
            "replicatedJobs": [{"name": "nodes", "replicas": 1, "template": {"spec": job}}],
        },
    }


def _config_map(name: str, recipe: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"recipe.yaml": recipe},
    }


def _script(name: str, profile: Profile, words: Sequence[str]) -> str:
    out = shlex.quote(words[-1])
    train = f"pretrain {shlex.join(words)} --resume auto"
    start = [
        "torchrun",
        f"--nnodes={profile.nodes}",
        f"--nproc-per-node={profile.tasks}",
        '--node-rank="$JOB_COMPLETION_INDEX"',
        f"--master-addr={name}-nodes-0-0.{name}",
        f"--master-port={_PORT}",
        "--max-restarts=0",
    ]
    return _START.format(
        check=f"mimsuite {train} --dry-run", train=f"{' '.join(start)} -m mimsuite {train}", out=out
    )


def _name(text: str) -> str:
    """A name for objects of Kubernetes, from that of the run directory."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_LONGEST_NAME].strip("-")
    return name if name[:1].isalpha() else f"run-{name}".strip("-")


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, and lists indented below their key."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)

_START = """\
# A wrong recipe or path ends the job now and not at every restart.
{check} > /dev/null || exit
touch /tmp/started
{train} &
training=$!
# A stop signal is passed on; this shell waits until training has saved.
trap 'kill -TERM "$training"' TERM
wait "$training"; code=$?
while kill -0 "$training" 2> /dev/null; do wait "$training"; code=$?; done
# torchrun always ends with 1; the run directory has the reason.
if [ "$code" != 0 ] && [ {out}/FAILED -nt /tmp/started ] \\
    && ! grep -qE '"reason": "(PeerError|Unreachable)' {out}/FAILED; then
    code=3
fi
exit "$code"
"""
