#!/usr/bin/env bash
# Guess: a depth picture that Open3D renders by casting rays through a pinhole camera gives back the surface when
#   create_from_depth_image() is called with the same intrinsics.
# Behaviour: every point is half a pixel off, left and up. The rays of create_rays_pinhole() go through the middle of a pixel,
#   (x + 0.5 - cx) / f; create_from_depth_image() takes the pixel's index for its place, (x - cx) / f.
# Why it matters to a user of this field: depth of a head mesh becomes points to fit or to initialise Gaussians from. At 256
#   pixels over 40 cm the points lie 0.8 mm beside the surface in x and in y, always to the same side, which an alignment then
#   explains by a wrong pose. Subtract 0.5 from cx and cy for the second call.
# Versions: open3d-cpu 0.20.0, numpy 1.26.4, Python 3.11. Date: 2026-12-01.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check open3d-cpu==0.20.0 numpy==1.26.4

venv/bin/python - <<'EOF'
import numpy as np
import open3d as o3d

width, height, focal = 256, 256, 640.0
intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])

# A sphere with a radius of 10 cm, one metre before the camera.
sphere = o3d.geometry.TriangleMesh.create_sphere(radius=0.1, resolution=200).translate((0, 0, 1.0))
scene = o3d.t.geometry.RaycastingScene()
scene.add_triangles(o3d.t.geometry.TriangleMesh.from_legacy(sphere))
rays = scene.create_rays_pinhole(o3d.core.Tensor(intrinsics), o3d.core.Tensor(np.eye(4)), width, height)
depth = scene.cast_rays(rays)["t_hit"].numpy()  # the rays' z is 1, so this is the depth
depth[~np.isfinite(depth)] = 0


def off(cx, cy):
    camera = o3d.camera.PinholeCameraIntrinsic(width, height, focal, focal, cx, cy)
    picture = o3d.geometry.Image(depth.astype(np.float32))
    cloud = o3d.geometry.PointCloud.create_from_depth_image(picture, camera, depth_scale=1.0, depth_trunc=10.0)
    points = np.asarray(cloud.points)
    return 1000 * (points[:, :2].mean(0)), 1000 * np.abs(np.linalg.norm(points - (0, 0, 1), axis=1) - 0.1).mean()


same, surface = off(width / 2, height / 2)
shifted, shifted_surface = off(width / 2 - 0.5, height / 2 - 0.5)
print(f"half a pixel at the sphere: {1000 * 0.5 * depth[depth > 0].mean() / focal:.2f} mm")
print(f"same intrinsics: centre off by {same[0]:+.2f}, {same[1]:+.2f} mm; points {surface:.2f} mm off the sphere")
print(f"cx, cy less 0.5: centre off by {shifted[0]:+.2f}, {shifted[1]:+.2f} mm; points {shifted_surface:.2f} mm off the sphere")
if not (np.all(same < -0.6) and np.all(np.abs(shifted) < 0.05) and surface > 5 * shifted_surface):
    raise SystemExit("Changed: Open3D casts rays and reads depth by the same convention of pixels.")
EOF
