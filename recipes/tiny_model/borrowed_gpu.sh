# A slice of training on a GPU machine that has no network, in two calls: `bash .../borrowed_gpu.sh render 160 215`, then
# `bash .../borrowed_gpu.sh train 85`. The first renders on the cores while benchmarks/gpu.py measures the card; the second
# trains for so many tenths of a minute, and runs the commands and the tests of the other device beside. Files come back in
# $OUT. .whl holds wheels and meshes.tar.xz, see README.md.
run="--init src/keyorbit/assets/tiny --objects 4000 --looks 6000 --seed 3 --variety 0.3 --out /tmp/run
 --categories chair,chair,car,car,aeroplane,aeroplane,animal,animal,table,lamp,mug,person
 --meshes /tmp/meshes --mesh-kinds aeroplane,animal,car,chair,cup,fish,lamp,person,sofa,table --mesh-views 600 --mesh-share 0.3
 --vae-steps 0 --vision-steps 1500 --vision-batch 256 --vision-rate 5e-4
 --unet-steps 1000000 --unet-batch 256 --unet-rate 6e-4 --grounding 0.4 --probe-every 1000000000 --save-every 100000"
export PYTHONPATH=$PWD/src:$PWD/recipes:$PWD/benchmarks:/tmp/site PYTHONUNBUFFERED=1 TORCHINDUCTOR_CACHE_DIR=/tmp/inductor
device=${DEVICE:-cuda}

render() { # seconds for the benchmark, seconds in all
    python3 -m pip install -q --no-index --no-deps --no-compile --target /tmp/site .whl/*.whl
    mkdir -p /tmp/meshes && tar xf .whl/meshes.tar.xz -C /tmp/meshes
    python3 -m tiny_model.train $run --precision bf16 --device "$device" --check || exit 2
    # In a session of its own it outlives this call; everything is found in /tmp/run by the next one.
    OMP_NUM_THREADS=1 setsid nohup nice -n 19 python3 -m tiny_model.train $run --workers 13 --threads 1 --render-only \
        >/tmp/render.log 2>&1 &
    timeout "$1" python3 benchmarks/gpu.py --sections capture discovery determinism --json "$OUT/gpu.json" \
        --markdown "$OUT/gpu.md"
    until [ -f /tmp/run/looks.safetensors ] || [ $SECONDS -gt "$2" ]; do sleep 1; done
    tail -n 2 /tmp/render.log
}

left() { # minutes, with one digit
    local seconds=$((tenths * 6 - SECONDS))
    echo "$((seconds / 60)).$((seconds % 60 / 6))"
}

slice() { # the name of its log, further options
    python3 -m tiny_model.train $run --workers 15 --threads 8 --precision bf16 --device "$device" --fill --back "$OUT" \
        --minutes "$(left)" "${@:2}" >"$OUT/$1.log" 2>&1
}

train() { # tenths of a minute
    tenths=$1
    while pgrep -f render-only >/dev/null && [ $SECONDS -lt 60 ]; do sleep 1; done
    (
        export KEYORBIT_TEST_DEVICE=$device CUDA_VISIBLE_DEVICES=0 JAXTYPING_DISABLE=1 PYTHONPATH=$PWD/tests:$PYTHONPATH
        timeout 300 nice python3 -m pytest -p no:xdist -p no:cacheprovider -q --tb=short \
            tests/other_device/device_{mathematics,detection,discovery,training}.py >"$OUT/tests.log" 2>&1
    ) &
    timeout 300 nice python3 benchmarks/gpu.py --sections commands --json "$OUT/commands.json" >"$OUT/commands.log" 2>&1 &
    # What cannot be compiled there is trained as it is.
    slice compiled --compile || { tail -n 20 "$OUT/compiled.log"; slice eager; }
    tail -qn 4 "$OUT"/*.log
}

"$@"
