"""Renders room plans by pybullet's software renderer: colour, instance and depth images.

It needs no display and no GPU, and the same plan gives the same pixels.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from mimsuite.data.synthetic.catalogue_meshes import CatalogueObject
from mimsuite.data.synthetic.room_plans import Plan
from mimsuite.errors import UserError

_NEAR, _FAR = 0.1, 20.0  # clipping planes, metres from the camera
_WALL = 0.05  # half the thickness of floor and walls, in metres
_TALL = 6.0  # extent of floor and walls from the floor's centre, in metres: beyond any image
ROOM = 3  # the first bodies: floor and two walls


class View(NamedTuple):
    """What the camera sees.

    Attributes:
        rgb: (H, W, 3) uint8.
        body: (H, W) int64; 0 floor, 1 and 2 walls, 3 ... the pieces of the plan; -1 nothing.
        depth: (H, W) float64, metres along the optical axis.
    """

    rgb: np.ndarray
    body: np.ndarray
    depth: np.ndarray


class TinyRenderer:
    """A renderer and its loaded meshes; use it in a ``with`` statement.

    Raises:
        UserError: pybullet is not installed.
    """

    def __init__(self) -> None:
        self._bullet = _pybullet()
        self._folder = tempfile.TemporaryDirectory(prefix="mimsuite-meshes-")
        self._client = self._bullet.connect(self._bullet.DIRECT)

    def __enter__(self) -> TinyRenderer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bullet.disconnect(self._client)
        self._folder.cleanup()

    def render(self, plan: Plan, size: int) -> View:
        """Render a square view of ``size`` pixels per side."""
        bullet, client = self._bullet, self._client
        bullet.resetSimulation(physicsClientId=client)
        self._build(plan)
        view = bullet.computeViewMatrix(plan.eye.tolist(), plan.target.tolist(), [0, 0, 1])
        lens = bullet.computeProjectionMatrixFOV(plan.field_of_view, 1.0, _NEAR, _FAR)
        _, _, rgba, buffer, bodies = bullet.getCameraImage(
            size,
            size,
            view,
            lens,
            lightDirection=plan.light.tolist(),
            shadow=1,
            renderer=bullet.ER_TINY_RENDERER,
            physicsClientId=client,
        )
        rgb = np.reshape(rgba, (size, size, 4))[..., :3].astype(np.uint8)
        body = np.reshape(bodies, (size, size)).astype(np.int64)
        buffer = np.reshape(buffer, (size, size)).astype(np.float64)
        return View(rgb, body, _FAR * _NEAR / (_FAR - (_FAR - _NEAR) * buffer))

    def _build(self, plan: Plan) -> None:
        """Create floor, walls and pieces, in this order, as bodies 0, 1, 2, 3 ..."""
        middle = _TALL - plan.half
        boxes = [
            ([_TALL, _TALL, _WALL], [middle, -middle, -_WALL]),
            ([_WALL, _TALL, _TALL], [-plan.half - _WALL, -middle, 0]),
            ([_TALL, _WALL, _TALL], [middle, plan.half + _WALL, 0]),
        ]
        for (sides, at), colour in zip(boxes, plan.colours, strict=True):
            self._body(at, 0.0, colour, shapeType=self._bullet.GEOM_BOX, halfExtents=sides)
        for piece in plan.pieces:
            self._body(
                [*piece.at.tolist(), 0.0],
                piece.yaw,
                piece.colour,
                shapeType=self._bullet.GEOM_MESH,
                fileName=str(self._mesh(piece.shape)),
            )

    def _body(self, at: list[float], yaw: float, colour: np.ndarray, **shape: Any) -> None:
        bullet, client = self._bullet, self._client
        visual = bullet.createVisualShape(
            rgbaColor=[*colour.tolist(), 1.0], physicsClientId=client, **shape
        )
        bullet.createMultiBody(
            baseVisualShapeIndex=visual,
            basePosition=at,
            baseOrientation=bullet.getQuaternionFromEuler([0.0, 0.0, yaw]),
            physicsClientId=client,
        )

    def _mesh(self, shape: CatalogueObject) -> Path:
        path = Path(self._folder.name) / f"{shape.row}.obj"
        if not path.exists():
            path.write_text(_wavefront(shape.vertices, shape.faces))
        return path


def _wavefront(vertices: np.ndarray, faces: np.ndarray) -> str:
    """An OBJ file with a normal at each vertex, for smooth shading."""
    corners = vertices[faces]  # (F, 3, 3)
    of_face = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], of_face)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    lines = [f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in vertices.tolist()]
    lines += [f"vn {x:.4f} {y:.4f} {z:.4f}" for x, y, z in normals.tolist()]
    lines += [f"f {a}//{a} {b}//{b} {c}//{c}" for a, b, c in (faces + 1).tolist()]
    return "\n".join(lines) + "\n"


def _pybullet() -> Any:
    """The module. Its banner on import is sent to stderr, because stdout is for results."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        import pybullet

        ctypes.CDLL(None).fflush(None)  # the banner waits in the C library's buffer
    except ImportError as fault:
        raise UserError(f"scenes need pybullet ({fault}): pip install 'mimsuite[scenes]'") from None
    finally:
        os.dup2(kept, 1)
        os.close(kept)
    return pybullet
