"""More of the sweep's command lines, as in ``bad_input_cases``: pictures, measures and clusters."""

from __future__ import annotations

from tests.cli.bad_input_cases import MODELS, M

K = f"submit {M} --dry-run --to kubernetes --out /data/run --volume claim:/data"

# What is taken for a model, by the commands that measure one or draw what it sees.
TAKE_MODELS = (
    "dense-probe {}",
    "low-shot {} --data $labelled",
    "robustness {} --data $labelled",
    "pictures {} --input $photos --out $out",
)

MEASURES = [
    ("dense-probe $run --data $nothing", 2, "nothing"),
    ("dense-probe $run --data $empty", 23, "empty"),
    ("dense-probe $run --data $photos", 23, "photos"),
    ("dense-probe $run --data $file", 23, "file.txt"),
    ("dense-probe $run --data embedded:nope", 2, "nope"),
    ("dense-probe $run image/nope", 2, "image/nope"),
    (f"dense-probe $run {M}", 2, "probe"),
    ("dense-probe $run --data $masks mask.ratio=0.5", 2, "mask"),
    ("dense-probe $run --data $masks --smoke --device tpu", 2, "tpu"),
    ("dense-probe $run --data $masks --smoke --out $file/x.json", 2, "file.txt"),
    ("dense-probe $run --data $masks --smoke --out $full", 2, "full"),
    ("low-shot $run --data $nothing", 2, "nothing"),
    ("low-shot $run --data $empty", 3, "empty"),
    ("low-shot $run --data $photos", 23, "photos"),
    ("low-shot $run --data $broken", 3, "broken"),
    ("low-shot $run --data $labelled --labels few", 2, "few"),
    ("low-shot $run --data $labelled --labels 0", 2, "0"),
    ("low-shot $run --data $labelled --labels -1", 2, "-1"),
    ("low-shot $run --data $labelled --labels 200%", 2, "200%"),
    ("low-shot $run --data $labelled --labels 1,,2", 2, "''"),
    ("low-shot $run --data $labelled --labels ''", 2, "''"),
    ("low-shot $run --data $labelled --labels 999", 3, "4 samples"),
    ("low-shot $run --data $labelled --recipe image/nope", 2, "--finetune"),
    (f"low-shot $run --data $labelled --labels 1 --finetune --recipe {M}", 2, "finetune"),
    ("low-shot $run --data $labelled mask.ratio=0.5", 2, "mask.ratio"),
    ("low-shot $run --data $labelled --device tpu", 2, "tpu"),
    ("low-shot $run --data $labelled --resume later", 2, "--resume"),
    ("low-shot $run --data $labelled --labels 1 --out $file", 2, "file.txt"),
    ("low-shot $run --data $labelled --labels 1 --out $file/x", 2, "file.txt"),
    ("robustness $run --data $nothing", 2, "nothing"),
    ("robustness $run --data $empty", 3, "empty"),
    ("robustness $run --data $photos", 23, "photos"),
    ("robustness $run --data $broken", 3, "broken"),
    ("robustness $run --data $labelled --shifted $nothing", 2, "nothing"),
    ("robustness $run --data $labelled --shifted $empty", 3, "empty"),
    ("robustness $run --data $labelled --shifted $photos", 23, "photos"),
    ("robustness $run --data $labelled eval.corruptions=[rain]", 2, "corruptions"),
    ("robustness $run --data $labelled mask.ratio=0.5", 2, "mask.ratio"),
    ("robustness $run --data $labelled --device tpu", 2, "tpu"),
    ("robustness $run --data $labelled --out $file/x.json", 2, "file.txt"),
    ("linear-probe $run --data $labelled --resume later", 2, "--resume"),
    ("linear-probe $run --data $labelled --resume auto", 2, "--recipe"),
    ("attentive-probe $run --data $labelled --out $out --recipe image/nope", 2, "image/nope"),
    (f"attentive-probe $run --data $labelled --out $out --recipe {M}", 2, "attentive"),
    ("attentive-probe $run --data $labelled --out $out --device tpu --smoke", 2, "tpu"),
    ("attentive-probe $run --data $labelled --out $out --resume later", 2, "later"),
    ("knn $run --data $labelled --device tpu", 2, "tpu"),
    ("knn $run --data $labelled --out $file/x.json", 2, "file.txt"),
    ("evaluate $tuned --data $labelled --device tpu", 2, "tpu"),
    ("evaluate $tuned --data $labelled --out $file/x.json", 2, "file.txt"),
    ("features $run --data $photos --out $out.safetensors --device tpu", 2, "tpu"),
    ("features $run --data $photos --out $file --shards", 2, "file.txt"),
    ("score $run --data $photos --out $out.csv --device tpu", 2, "tpu"),
]

PICTURES = [
    ("pictures $run --input $nothing --out $out", 2, "nothing"),
    ("pictures $run --input $empty --out $out", 3, "empty"),
    ("pictures $run --input $file --out $out", 23, "file.txt"),
    ("pictures $run --input $broken/0.png --out $out", 3, "0.png"),
    ("pictures $run --input $photos --out $file", 2, "file.txt"),
    ("pictures $run --input $photos --out $file/x", 2, "file.txt"),
    ("pictures $run --input $photos --out $out --query 9999", 2, "9999"),
    ("pictures $run --input $photos --out $out --query -5", 2, "-5"),
    ("pictures $run --input $photos --out $out --split nosplit", 2, "nosplit"),
    ("pictures $run --input $photos --out $out --device tpu", 2, "tpu"),
    ("pictures $run --input $points --out $out", 23, "points"),
    ("card $nothing", 2, "nothing"),
    ("card $file", 2, "file.txt"),
    ("card $run --out $file/x.html", 2, "file.txt"),
    ("card $run --out $full", 2, "full"),
    ("runs compare $nothing $run", 2, "nothing"),
    ("runs compare $run $file", 2, "file.txt"),
]

STATS = [
    ("data stats $nothing", 2, "nothing"),
    ("data stats $empty", 3, "empty"),
    ("data stats $text", 3, "text"),
    ("data stats $broken", 3, "broken"),
    ("data stats $noisetar", 3, "noise.tar"),
    ("data stats $points", 23, "points"),
    ("data stats $photos --modality smell", 2, "smell"),
    ("data stats $photos --channels cmyk", 2, "cmyk"),
    ("data stats $photos --split nosplit", 2, "nosplit"),
    ("data stats $photos --bands 1,x", 2, "bands"),
    ("data stats $photos --modality bands", 3, "photos"),
    ("data convert $random_pth $out", 23, "random.pth"),
    ("data convert $trapped $out", 23, "trapped.pth"),
    ("data convert $text $out", 23, "text"),
    ("data convert $empty $out", 23, "empty"),
]

MODELS_OUT = [
    ("export $run --format timm --image-size 33 --out $out", 2, "image-size"),
    ("export $run --format timm --heads 3 --out $out", 2, "own recipe"),
    ("import $run --decoder-heads 3 --out $out.safetensors", 2, "own recipe"),
    ("export $bare --format hf --out $out", 2, "bare"),
    ("import $whole --heads 7 --out $out.safetensors", 2, "whole.pth"),
    ("import $photos --out $out.safetensors", 2, "photos"),
    ("import $whole --out $file/x.safetensors", 2, "whole.pth"),
    ("import $run --out $out.txt", 2, "out.txt"),
]

CLUSTERS = [
    (f"submit {M} --dry-run --to nomad", 2, "nomad"),
    (f"submit {M} --to kubernetes --image x", 2, "--dry-run"),
    (K, 2, "--image"),
    (f"{K} --image ''", 2, "image"),
    (f"{K} --image 'a b'", 2, "a b"),
    (f"{K} --image x --volume data", 2, "data"),
    (f"{K} --image x --volume data:relative", 2, "relative"),
    (f"{K} --image x --volume 'Bad Claim:/data'", 2, "Bad Claim"),
    (f"{K} --image x --nodes 0", 2, "nodes"),
    (f"{K} --image x --gpus-per-node -1", 2, "gpus_per_node"),
    (f"{K} --image x --time soon", 2, "--time"),
    (f"{K} --image x mask.ratio=2", 2, "mask.ratio"),
    (f"{K} --image x --partition gpu", 2, "partition"),
    (f"{K} --image x --sweep optim.lr=1e-3,1e-4", 2, "--sweep"),
    (f"{K} --image x --after 12", 2, "--after"),
    (f"submit {M} --dry-run --image x", 2, "--image"),
    (f"submit {M} --dry-run --volume data:/data", 2, "--volume"),
    (f"submit {M} --dry-run --tasks-per-node 0", 2, "tasks_per_node"),
    (f"submit {M} --dry-run --cpus-per-task 0", 2, "cpus_per_task"),
    (f"submit {M} --dry-run --account 'a b'", 2, "account"),
    (f"submit {M} --dry-run --qos 'a b'", 2, "qos"),
    (f"submit {M} --dry-run --constraint 'a;b'", 2, "constraint"),
    (f"submit {M} --dry-run --max-requeues -1", 2, "max_requeues"),
]

PLACES = [
    ("recipes diff image/mae-tiny-fashion $nothing", 2, "nothing"),
    ("recipes validate image/nope", 2, "image/nope"),
    ("doctor --memory-gb -1", 2, "memory"),
    (f"bench step {M} --batch 0", 2, "batch"),
    (f"bench all {M} mask.ratio=2", 2, "mask.ratio"),
    (f"bench ddp {M} --threads 0", 2, "threads"),
    ("bench replay $random_safetensors --device tpu", 2, "random.safetensors"),
    ("data nerf-grid-convert $flat $out --density log --boxes $nothing", 3, "flat.npz"),
    ("data nerf-grid-convert $flat $out --density log --split $random_json", 23, "random.json"),
    ("data nerf-grid field:load --cameras $cameras --out $out.npz --bbox 1,2", 2, "field:load"),
    ("data fit-nerf $cameras --out $file/x.npz", 23, "f"),
]

WRONG_MODELS = [
    (command.format(model), 2, culprit)
    for index, command in enumerate(TAKE_MODELS)
    for number, (model, culprit) in enumerate(MODELS)
    if (index + number) % 3 == 0
]

MORE_CASES = [*WRONG_MODELS, *MEASURES, *PICTURES, *STATS, *MODELS_OUT, *CLUSTERS, *PLACES]
