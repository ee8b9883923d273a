#!/bin/sh
# The main job from start to end, on objects made here: about three minutes on two cores. What an earlier call left in the
# folder is replaced; other files are never touched.
set -eu
out=${1:-build/demo}

echo "1. Objects: 60 chairs to learn from, 20 others to test on"
keyorbit dataset make "$out/train" --category chair --objects 60 --seed 1 --workers 2 --overwrite
keyorbit dataset make "$out/test" --category chair --objects 20 --seed 2 --workers 2 --overwrite

echo "2. Discover 16 keypoints, without labels"
keyorbit discover "$out/train" --out "$out/run" --overwrite

echo "3. Detect them on a chair that was not seen before: from its six views, and from one picture alone"
# Of the first one's picture, chair_2_00000, the tiny model makes something like an aeroplane: docs/tiny-model.md, limits.
chair="$out/test/chair_2_00003"
keyorbit detect "$out/run" "$chair" --out "$out/given_views" --overwrite
keyorbit detect "$out/run" "$chair/cond.png" --out "$out/one_picture" --overwrite

echo "4. Measure them against the truth, next to untrained tokens"
keyorbit evaluate "$out/run" "$out/test" --fit "$out/train" --json "$out/scores.json"

echo "5. All of it on one page"
ls "$out"/given_views/overlay.png "$out"/one_picture/overlay.png
keyorbit report "$out/run" "$out/test" --scores "$out/scores.json"
