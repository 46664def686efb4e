# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Miniatures of public data sets in their exact layouts, made from the real test images.

The images are warped into the camera of the data set, so that poses and depths stay valid.
"""

import cv2
import numpy as np

from nre_ros.geometry import Camera, invert, position_quaternion
from nre_ros.keyframes.building.depth_registration import register_depth
from nre_ros.keyframes.importers.colmap.cameras import read_cameras_txt
from nre_ros.keyframes.importers.colmap.poses_source import ColmapPosesSource
from nre_ros.keyframes.importers.rgbd.seven_scenes import COLOUR_CAMERA, DEPTH_CAMERA, T_COLOUR_DEPTH
from nre_ros.keyframes.importers.text_files import read_list
from nre_ros.keyframes.importers.text_trajectory import parse_tum_pose

MAP, QUERIES = 5, 2
"""Number of the kitchen's last map images and of its first queries, which follow them."""
FREIBURG3 = Camera(640, 480, 535.4, 539.2, 320.1, 247.6)


def kitchen_frames(kitchen, camera):
    """(name, BGR, depth in metres, T_map_cam, is a query) of some images, as ``camera`` sees them."""
    kitchen_camera = next(iter(read_cameras_txt(kitchen / "sparse/cameras.txt").values()))
    warp = cv2.initUndistortRectifyMap(
        kitchen_camera.K, np.array(kitchen_camera.distortion), None, camera.K, (640, 480), cv2.CV_32FC1
    )
    for split, part in (("map", slice(-MAP, None)), ("query", slice(QUERIES))):
        names, lines = read_list(kitchen / f"{split}.txt"), read_list(kitchen / f"{split}_poses.txt")
        for name, line in list(zip(names, lines))[part]:
            image = cv2.remap(cv2.imread(str(kitchen / "images" / name)), *warp, cv2.INTER_LINEAR)
            depth = cv2.imread(str((kitchen / "depth" / name).with_suffix(".png")), cv2.IMREAD_UNCHANGED)
            depth = cv2.remap(depth, *warp, cv2.INTER_NEAREST).astype(np.float32) / 1000
            yield name, image, depth, parse_tum_pose(line)[1], split == "query"


def seven_scenes(kitchen, root):
    """root/redkitchen with seq-01 for training and seq-02 for testing; depth and poses are those of the depth camera."""
    scene = root / "redkitchen"
    for sequence in ("seq-01", "seq-02"):
        (scene / sequence).mkdir(parents=True)
    (scene / "TrainSplit.txt").write_text("sequence1\n")
    (scene / "TestSplit.txt").write_text("sequence2\n")
    for k, (_, image, depth, T, query) in enumerate(kitchen_frames(kitchen, COLOUR_CAMERA)):
        stem = scene / f"seq-0{1 + query}/frame-{k:06d}"
        cv2.imwrite(f"{stem}.color.png", image)
        raw = register_depth(depth, COLOUR_CAMERA, DEPTH_CAMERA, invert(T_COLOUR_DEPTH))
        raw = np.round(1000 * raw).astype(np.uint16)
        raw[raw == 0] = 65535
        cv2.imwrite(f"{stem}.depth.png", raw)
        np.savetxt(f"{stem}.pose.txt", T @ T_COLOUR_DEPTH, delimiter="\t ")
    return root


def tum(kitchen, root):
    """Two sequences with the camera of freiburg3."""
    for k, (_, image, depth, T, query) in enumerate(kitchen_frames(kitchen, FREIBURG3)):
        folder = root / f"rgbd_dataset_freiburg3_{'query' if query else 'map'}"
        stamp = f"{1305031102 + k}.175304"
        for kind in ("rgb", "depth"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            append(folder / f"{kind}.txt", f"{stamp} {kind}/{stamp}.png", f"# {kind} images\n# timestamp filename\n")
        cv2.imwrite(str(folder / f"rgb/{stamp}.png"), image)
        cv2.imwrite(str(folder / f"depth/{stamp}.png"), np.round(5000 * depth).astype(np.uint16))
        position, quaternion = position_quaternion(T)
        numbers = " ".join(f"{value:.6f}" for value in (*position, *quaternion))
        append(folder / "groundtruth.txt", f"{stamp} {numbers}", "# ground truth trajectory\n")
    return root


def fountain_frames(fountain):
    """(name, BGR, camera, T_map_cam, is a query)."""
    for split in ("map", "query"):
        source = ColmapPosesSource(fountain / "sparse", fountain / "images", fountain / f"{split}.txt")
        for name in source.names():
            yield name, source.image(name), source.camera(name), source.pose(name)[1], split == "query"


def centred(camera):
    """A camera of half the size, with one focal length and the principal point in the image centre."""
    width, height = camera.width // 2, camera.height // 2
    return Camera(width, height, camera.fx / 2, camera.fx / 2, (width - 1) / 2, (height - 1) / 2)


def cambridge(fountain, root):
    """root/ShopFacade; the NVM model lists .jpg, the files are .png, as in the original."""
    scene, cameras = root / "ShopFacade", []
    for name, image, camera, T, query in fountain_frames(fountain):
        ideal, sequence = centred(camera), "seq1" if query else "seq2"
        warp = cv2.initUndistortRectifyMap(camera.K, None, None, ideal.K, (ideal.width, ideal.height), cv2.CV_32FC1)
        image = cv2.GaussianBlur(image, (0, 0), 0.8)  # before the image is halved
        (scene / sequence).mkdir(parents=True, exist_ok=True)
        stem = f"{sequence}/frame{int(name[:-4]):05d}"
        cv2.imwrite(str(scene / f"{stem}.png"), cv2.remap(image, *warp, cv2.INTER_LINEAR))
        x, y, z, w = position_quaternion(invert(T))[1]
        numbers = " ".join(f"{value:.9f}" for value in (*T[:3, 3], w, x, y, z))
        heading = "Visual Landmark Dataset V1\nImageFile, Camera Position [X Y Z W P Q R]\n\n"
        append(scene / f"dataset_{'test' if query else 'train'}.txt", f"{stem}.png {numbers}", heading)
        cx, cy, cz = T[:3, 3]
        cameras.append(f"{stem}.jpg {ideal.fx:.9f} {w} {x} {y} {z} {cx} {cy} {cz} -0.01 0 ")
    model = ["NVM_V3 ", "", f"{len(cameras)}", *cameras, "", "0", "", "0", ""]
    (scene / "reconstruction.nvm").write_text("\n".join(model))
    return root


def euroc(fountain, root):
    """V1_01_easy with the map's images and V1_02_medium with the queries, in grey, with a mount like the original's."""
    mount = np.array(
        [
            [0.0148655, -0.99988, 0.0041402, -0.0216401],
            [0.999557, 0.0149672, 0.0257155, -0.0646769],
            [-0.0257744, 0.00375618, 0.999660, 0.00981073],
            [0, 0, 0, 1],
        ]
    )
    U, _, Vt = np.linalg.svd(mount[:3, :3])
    mount[:3, :3] = U @ Vt
    for k, (_, image, camera, T, query) in enumerate(fountain_frames(fountain)):
        mav0 = root / ("V1_02_medium" if query else "V1_01_easy") / "mav0"
        (mav0 / "cam0/data").mkdir(parents=True, exist_ok=True)
        (mav0 / "state_groundtruth_estimate0").mkdir(exist_ok=True)
        stamp = 1403715273262142976 + k * 50_000_000
        cv2.imwrite(str(mav0 / f"cam0/data/{stamp}.png"), cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
        append(mav0 / "cam0/data.csv", f"{stamp},{stamp}.png", "#timestamp [ns],filename\n")
        rows = ", ".join(repr(float(value)) for value in mount.ravel())
        (mav0 / "cam0/sensor.yaml").write_text(
            f"sensor_type: camera\nT_BS:\n  cols: 4\n  rows: 4\n  data: [{rows}]\nrate_hz: 20\n"
            f"resolution: [{camera.width}, {camera.height}]\ncamera_model: pinhole\n"
            f"intrinsics: [{camera.fx}, {camera.fy}, {camera.cx}, {camera.cy}] #fu, fv, cu, cv\n"
            "distortion_model: radial-tangential\ndistortion_coefficients: [0.0, 0.0, 0.0, 0.0]\n"
        )
        for shift in (-2_500_000, 2_500_000):  # the ground truth has other stamps than the images
            (px, py, pz), (x, y, z, w) = position_quaternion(T @ invert(mount))
            append(
                mav0 / "state_groundtruth_estimate0/data.csv",
                ",".join(map(repr, [stamp + shift, *map(float, (px, py, pz, w, x, y, z)), *[0.0] * 9])),
                "#timestamp, p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z []\n",
            )
    return root


def aachen(kitchen, root, count=8):
    """COLMAP model of the last ``count`` map images below db/, and two queries per condition."""
    images, model = root / "images/images_upright", root / "3D-models/aachen_v_1_1"
    for folder in ("db", "query/day/milestone", "query/night/nexus5x"):
        (images / folder).mkdir(parents=True)
    model.mkdir(parents=True)
    (root / "queries").mkdir()
    lines = read_list(kitchen / "sparse/images.txt")
    entries = list(zip(lines[::2], lines[1::2]))[-count:]
    points = [line.split() for line in read_list(kitchen / "sparse/points3D.txt")]
    kept, chosen = {}, {entry[0].split()[0] for entry in entries}
    for fields in points:
        track = [(i, k) for i, k in zip(fields[8::2], fields[9::2]) if i in chosen]
        if len(track) >= 2:
            kept[fields[0]] = " ".join([*fields[:8], *(value for pair in track for value in pair)])
    out = []
    for head, observed in entries:
        name = head.split()[-1]
        (images / "db" / name).write_bytes((kitchen / "images" / name).read_bytes())
        values = observed.split()
        values[2::3] = [value if value in kept else "-1" for value in values[2::3]]
        out += [head.replace(name, f"db/{name}"), " ".join(values)]
    (model / "images.txt").write_text("\n".join(out) + "\n")
    (model / "points3D.txt").write_text("\n".join(kept.values()) + "\n")
    (model / "cameras.txt").write_bytes((kitchen / "sparse/cameras.txt").read_bytes())
    camera = " ".join(read_list(kitchen / "sparse/cameras.txt")[0].split()[1:])
    queries = read_list(kitchen / "query.txt")[: 2 * QUERIES]
    for k, name in enumerate(queries):
        where = "query/day/milestone" if k < QUERIES else "query/night/nexus5x"
        (images / where / name).write_bytes((kitchen / "images" / name).read_bytes())
        time = "day" if k < QUERIES else "night"
        append(root / f"queries/{time}_time_queries_with_intrinsics.txt", f"{where}/{name} {camera}")
    return root


def inloc(kitchen, root, count=5):
    """Cutouts of a scan in another frame than the floor; queries with the phone's focal length."""
    from scipy.io import savemat
    from scipy.spatial.transform import Rotation

    T_floor_scan = np.eye(4)
    T_floor_scan[:3, :3] = Rotation.from_euler("z", 40, degrees=True).as_matrix()
    T_floor_scan[:3, 3] = [3, -2, 1]
    cutouts, alignments = root / "database/cutouts/DUC1/024", root / "database/alignments/DUC1/transformations"
    for folder in (cutouts, alignments, root / "query/iphone7"):
        folder.mkdir(parents=True)
    rows = [" ".join(f"{value:.12f}" for value in row) for row in T_floor_scan]
    text = ["before GICP", "", *rows, "", *rows, "", "error 0.01"]  # the second matrix is in the lines 8 to 11
    (alignments / "DUC_trans_024.txt").write_text("\n".join(text) + "\n")
    cutout_camera = Camera(640, 480, 554.2, 554.2, 319.5, 239.5)
    for k, (_, image, depth, T, query) in enumerate(kitchen_frames(kitchen, cutout_camera)):
        if not query:
            name = str(cutouts / f"DUC_cutout_024_{30 * k}_0.jpg")
            cv2.imwrite(name, image, [cv2.IMWRITE_JPEG_QUALITY, 95])
            y, x = np.mgrid[:480, :640]
            rays = np.stack([(x - 319.5) / 554.2, (y - 239.5) / 554.2, np.ones_like(x)], axis=-1)
            local = np.where(depth[..., None] > 0, rays * depth[..., None], np.nan)
            T_scan_cam = invert(T_floor_scan) @ T
            savemat(name + ".mat", {"XYZcut": local @ T_scan_cam[:3, :3].T + T_scan_cam[:3, 3]})
    focal = 640 * 28 / 36
    for k, (_, image, _, _, query) in enumerate(kitchen_frames(kitchen, Camera(640, 480, focal, focal, 319.5, 239.5))):
        if query:
            cv2.imwrite(str(root / f"query/iphone7/IMG_{731 + k:04d}.JPG"), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    return root


def append(path, line, heading=""):
    if not path.exists():
        path.write_text(heading)
    with path.open("a") as file:
        file.write(line + "\n")
