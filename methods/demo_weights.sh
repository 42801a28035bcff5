#!/bin/sh
# How the demonstration weights are trained: sh methods/demo_weights.sh DATA METHOD [arguments of mrbench train]
# DATA holds the six folders named below, each with a manifest.csv. No subject of the data set `sample` is among them.
# The commands that were used:
#   sh methods/demo_weights.sh DATA res_srdiff --scale 4 --name x4 --steps 2400 --exclude ProstateX-0000 \
#     --set "res_srdiff.unet.channel_mult=[1,2,2]" --out OUT/res_srdiff/x4
#   sh methods/demo_weights.sh DATA res_srdiff --scale 2 --name x2 --steps 1000 --exclude ProstateX-0000 \
#     --set "res_srdiff.unet.channel_mult=[1,2,2]" --out OUT/res_srdiff/x2
#   sh methods/demo_weights.sh DATA resshift --scale 4 --name x4 --out OUT/resshift/x4
#   sh methods/demo_weights.sh DATA sinsr --scale 4 --name x4 --out OUT/sinsr/x4
#   sh methods/demo_weights.sh DATA i2sb --scale 4 --name x4 --out OUT/i2sb/x4
#   sh methods/demo_weights.sh DATA scale_cascaded --scale 4 --name x4 --out OUT/scale_cascaded/x4
#   sh methods/demo_weights.sh DATA edsr --scale 4 --name x4 --exclude ProstateX-0000 --out OUT/edsr/x4
#   sh methods/demo_weights.sh DATA swinir --scale 4 --name x4 --exclude ProstateX-0000 --out OUT/swinir/x4
#   sh methods/demo_weights.sh DATA tm_ddpm --scale 4 --name x4 --steps 3000 --exclude ProstateX-0000 --out OUT/tm_ddpm/x4
#   sh methods/demo_weights.sh DATA diffpir --scale 4 --name prior --out OUT/diffpir/prior    (dps uses it too)
#   sh methods/demo_weights.sh DATA msp_sr --scale 4 --name x4 --out OUT/msp_sr/x4    (needs pip install 'mrbench[photographs]')
#   sh methods/demo_weights.sh DATA pix2pix --scale 4 --name x4 --out OUT/pix2pix/x4, and the same for spsr and cyclegan
# The ablation on the card of Res-SRDiff (not shipped), with and without its second line:
#   sh methods/demo_weights.sh DATA res_srdiff --scale 4 --set res_srdiff.diffusion.scaling=none --out OUT/ablation \
#     --ablation no_swin
set -eu
data=$1 method=$2
shift 2

add() { # name, licence, further options
    name=$1 licence=$2
    shift 2
    set -- --dataset "$name=folder" --set "$name.path=$data/$name" --set "$name.licence=$licence" "$@"
    for word in "$@"; do printf '%s\0' "$word"; done
}

three_stages() { # out of domain: photographs; in domain: many people; target domain: three brains at full resolution
    printf '%s\0' --dataset ood=photographs
    for word in --dataset id=folder --set "id.path=$data/brain_t1_ixi_2mm" --set id.split=hash \
        --set "id.licence=CC BY-SA 3.0 (IXI, brain-development.org)" \
        --dataset td=folder --set "td.path=$data/brain_t1_fnndsc" --set td.split=hash --set td.split_seed=3 \
        --set "td.licence=Apache-2.0 and MIT (FNNDSC)" \
        --dataset td2=folder --set "td2.path=$data/brain_t1_studyforrest" --set td2.split=all_train \
        --set "td2.licence=PDDL 1.0 (studyforrest, Hanke 2014)" --set "$method.stages.td.data=[td, td2]"; do
        printf '%s\0' "$word"
    done
}

six_sets() {
    add brain_t1_ixi_2mm "CC BY-SA 3.0 (IXI, brain-development.org)" --set brain_t1_ixi_2mm.split=hash
    add brain_t1_fnndsc "Apache-2.0 and MIT (FNNDSC)" --set brain_t1_fnndsc.split=hash --set brain_t1_fnndsc.split_seed=3
    add prostate_t2 "CC BY 3.0 (PROSTATEx, The Cancer Imaging Archive)" --set prostate_t2.split=hash --set prostate_t2.split_seed=2
    add brain_t2_fnndsc_adi "Apache-2.0 (FNNDSC)" --set brain_t2_fnndsc_adi.split=all_train
    add brain_t1_studyforrest "PDDL 1.0 (studyforrest, Hanke 2014)" --set brain_t1_studyforrest.split=all_train
    add brain_multicontrast_tcga "CC BY 3.0 (TCGA-LGG, The Cancer Imaging Archive)" --set brain_multicontrast_tcga.split=all_train
}

{
    case $method in
    msp_sr) three_stages ;;
    *) six_sets ;;
    esac
    for word in "$@"; do printf '%s\0' "$word"; done
} | xargs -0 mrbench train "$method" --preset demo --held-out sample --probe sample --threads 1 \
    --licence "CC BY-SA 3.0 (as the IXI data)"
