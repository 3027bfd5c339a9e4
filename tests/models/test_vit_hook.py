"""A ViT that lets go of tokens on the way, and tells its queries, keys and values."""

from __future__ import annotations

import torch
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.encoders import ViTSection
from mimsuite.models import ViT

SECTION = ViTSection(image_size=32, patch_size=8, width=32, depth=3, heads=4)


def encoder() -> ViT:
    torch.manual_seed(0)
    return ViT(SECTION).eval()


def patches(vit: ViT) -> Tensor:
    return vit.patches(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)))


def test_a_hook_that_keeps_all_changes_nothing() -> None:
    vit = encoder()
    seen: list[tuple[int, tuple[int, ...], list[int]]] = []

    def look(number: int, tokens: Tensor, ids: Tensor) -> None:
        seen.append((number, tuple(tokens.shape), ids[0, :3].tolist()))

    given = patches(vit)
    plain, hooked = vit(given), vit(given, hook=look)
    torch.testing.assert_close(plain.tokens, hooked.tokens)
    assert seen == [(n, (2, 16, 32), [0, 1, 2]) for n in (1, 2, 3)]


def test_tokens_that_a_hook_leaves_out_are_gone_for_the_blocks_behind() -> None:
    vit = encoder()
    ids = torch.tensor([[2, 9, 4, 7], [1, 3, 5, 11]])
    visible = patches(vit).gather(1, ids.unsqueeze(-1).expand(-1, -1, 192))
    kept = torch.tensor([[7, 2], [3, 11]])
    found = vit(visible, ids, hook=lambda n, tokens, here: kept if n == 1 else None, layers=[1])
    assert found.tokens.shape == (2, 2, 32)
    rows = torch.tensor([[3, 0], [1, 3]])  # where they are in ids
    x = found.layers[1]
    x = torch.cat([x[:, :1], x[:, 1:].gather(1, rows.unsqueeze(-1).expand(-1, -1, 32))], dim=1)
    for block in list(vit.blocks)[1:]:
        x = block(x)
    torch.testing.assert_close(found.tokens, vit.norm(x)[:, 1:])


def test_queries_keys_and_values_are_those_of_the_block() -> None:
    vit = encoder()
    found = vit(patches(vit), layers=[1, 2], qkv=[2])
    q, k, v = found.qkv[2]
    assert q.shape == (2, 4, 17, 8)
    x = found.layers[1]
    out = (q @ k.transpose(-1, -2) * 8**-0.5).softmax(-1) @ v
    block = vit.blocks[1]
    x = x + block.attn.proj(out.transpose(1, 2).flatten(2))
    torch.testing.assert_close(found.layers[2], x + block.mlp(block.norm2(x)))


def test_an_encoder_of_this_suite_teaches_what_probes_read() -> None:
    from mimsuite.config.keys.shared import AugmentSection
    from mimsuite.config.keys.teachers import RunTeacherSection
    from mimsuite.models.teachers import build_teacher
    from mimsuite.models.teachers.run import EncoderTeacher

    vit, statistics = encoder(), AugmentSection()
    section = RunTeacherSection(kind="run", patch_size=8, width=32, depth=3, heads=4)
    teacher = build_teacher(section, (4, 4), statistics)
    teacher._backbone = EncoderTeacher(vit)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    found = teacher.features(images, hidden=(1, 3), cls_attention=True, qkv=(2,))
    plain = vit.encode(Batch.of_images(images), layers=[1, 3])
    torch.testing.assert_close(found.tokens, plain.tokens)
    torch.testing.assert_close(found.cls, plain.cls[:, 0])
    for number in (1, 3):
        torch.testing.assert_close(found.hidden[number], plain.layers[number])
    own = vit(patches(vit), qkv=[2, 3]).qkv
    torch.testing.assert_close(found.qkv[2][0], own[2][0])
    q, k, _ = own[3]
    attention = (q @ k.transpose(-1, -2) * 8**-0.5).softmax(-1)[:, :, 0, 1:]
    torch.testing.assert_close(found.cls_attention, attention)
