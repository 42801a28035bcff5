#!/bin/sh
# How the committed results are made: sh leaderboards/make.sh IXI_2MM [WORK], from the repository's root, with mrbench on the PATH.
# IXI_2MM holds axial slices of 150 people of IXI at 2 mm, with a manifest.csv. WORK (default: work) keeps whole runs, images too.
# Called again, it goes on where it stopped. Every run is packed without images, verified, and filed with the record of that.
set -eu
ixi=$1 work=${2:-work}
here=$(dirname "$0")
ixi_set="--dataset ixi_2mm=folder --set ixi_2mm.path=$ixi"
licence="ixi_2mm.licence=CC BY-SA 3.0 (IXI, brain-development.org)"
plain="-m nearest -m bilinear -m bicubic -m lanczos -m bspline -m zero_filled"
fast="-m edsr -m swinir -m spsr -m pix2pix -m cyclegan -m res_srdiff -m resshift -m sinsr -m i2sb -m scale_cascaded"
slow="-m tm_ddpm -m msp_sr -m diffpir -m multigrid_pnp -m dps"

file() { # board, items to recompute, further arguments of verify: pack, verify and file all runs of a board
    board=$1 items=$2
    shift 2
    mkdir -p "$work/packages/$board"
    for run in "$work/$board"/*/*/*/manifest.json; do
        run=$(dirname "$run")
        package=$work/packages/$board/$(basename "$run").zip
        [ -e "$package" ] && continue
        mrbench submit "$run" --images 0 --out "$package.part.zip"
        mrbench verify "$package.part.zip" --items "$items" --seed 0 --by mrbench --threads 1 --out "$here/$board" "$@"
        mv "$package.part.zip" "$package"
    done
}

# All people, methods that learned nothing.
mrbench run $plain $ixi_set --set "$licence" --scale 4 --batch 100 --threads 1 --images none --no-pictures --out "$work/ixi-x4"
file ixi-x4 5 --set "ixi_2mm.path=$ixi"

# The people that no weights saw in training or validation, two slices of each.
mrbench run $plain $fast $ixi_set --set "$licence" --set ixi_2mm.split=hash --scale 4 --subset 44 --threads 1 --images none \
    --no-pictures --out "$work/ixi-unseen-x4"
file ixi-unseen-x4 2 --set "ixi_2mm.path=$ixi" --set ixi_2mm.split=hash

# The slices that ship.
mrbench run $plain -m res_srdiff --dataset sample --scale 2 --threads 1 --images none --no-pictures --out "$work/sample-x2"
file sample-x2 2
mrbench run $plain $fast $slow --dataset sample --scale 4 --threads 1 --out "$work/sample-x4"
file sample-x4 1
mkdir -p "$here/sample-x4/figures"
cp "$work"/sample-x4/sample/uniform-x4/figures/panel-*.png "$here/sample-x4/figures"

sh "$here/tables.sh" "$here"
