#!/usr/bin/env bash
# Makes every table and picture of this folder again, on two CPU cores.
#     DATA=../shared/data WORK=/tmp/results bash docs/results/run.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
DATA=${DATA:-../shared/data} WORK=${WORK:-/tmp/lamella_results} OUT=docs/results
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
lamella=${LAMELLA:-.venv/bin/lamella} python=${PYTHON:-.venv/bin/python}

chest=$DATA/classification/pneumoniamnist.npz
for method in lejepa ijepa; do
  $lamella pretrain "$chest" -p ${method}_28px -o "$WORK/pneumonia_$method" 'data.exclude_split=[val,test]'
  $lamella evaluate "$WORK/pneumonia_$method/model" "$chest" -o "$WORK/pneumonia_${method}_results" imagenet_px=64
  $lamella explain "$WORK/pneumonia_${method}_results" -o "$WORK/pneumonia_${method}_pictures"
done

$lamella index "$DATA/slides/TCGA-AA-3562-region.tif" -o "$WORK/index"
$python $OUT/cut_tiles.py "$WORK/index" "$WORK/tiles" 0.5015 512
$lamella pretrain "$DATA/segmentation/glas/manifest.csv" "$DATA/segmentation/nuinsseg/images" "$WORK/tiles" \
  -r $OUT/histology.yaml -o "$WORK/histology_lejepa"
$lamella evaluate "$WORK/histology_lejepa/model" "$DATA/segmentation/glas/manifest.csv" -o "$WORK/histology_results" \
  seen=train 'tasks=[linear,knn,nshot]'

brains=$DATA/volumes/brain_tumor_progression/manifest.csv
for patient in PGBM-001 PGBM-003 PGBM-006; do  # what a patient's Dice is judged with has never seen the patient
  $lamella pretrain "$brains" -r $OUT/brain.yaml -o "$WORK/brain_without_$patient" "data.exclude_groups=[$patient]"
  $lamella evaluate "$WORK/brain_without_$patient/model" "$brains" -o "$WORK/brain_results_$patient" \
    dataset.image=flair seen=train 'tasks=[segmentation]' segmentation.head=conv segmentation.epochs=300 segmentation.lr=0.01
done
$lamella explain "$WORK/brain_without_PGBM-003/model" "$brains" -o "$WORK/brain_pictures" dataset.image=flair

$python $OUT/make_films.py "$WORK"
for film in echo heart; do
  $lamella preview "$WORK/$film" -r $OUT/video.yaml -o "$WORK/${film}_preview"
  $lamella pretrain "$WORK/$film" -r $OUT/video.yaml -o "$WORK/${film}_run"
  $lamella explain "$WORK/${film}_run/model" "$WORK/$film" -o "$WORK/${film}_pictures"
done

# Glands (GlaS). 255 is the masks' one class; folds keep patients whole.
glas=$DATA/segmentation/glas/manifest.csv sam2=sam2-hiera-tiny@$DATA/weights/sam2_hiera_tiny_image_fp16.safetensors
$python $OUT/four_a_patient.py "$glas" "$WORK/four/glas/manifest.csv"
$lamella evaluate "$sam2" "$WORK/four/glas/manifest.csv" -o "$WORK/glas_prompted" dataset.mpp=0.62 \
  dataset.mask_classes.gland=255 mpp=0.62 'protocol.clicks=[1,3,5]' \
  'protocol.prompts=[clicks,centroid,multi-point,box,box + negatives,box + negatives + TTA]'
$lamella adapt "$glas" -p segment_frozen -o "$WORK/glas_sam2" data.dataset.mpp=0.62 data.folds=5 \
  "method.backbone.weights=$sam2"
for fold in 0 1 2; do  # all five take an hour of one core
  $lamella adapt "$glas" -p segment_small -o "$WORK/glas_segformer" data.dataset.mpp=0.62 data.folds=5 data.fold=$fold
done
for run in glas_sam2 glas_segformer; do  # left out: images that each model of the run has seen; none of glas_sam2
  $lamella evaluate "$WORK/$run" "$glas" -o "$WORK/${run}_results" dataset.mpp=0.62 seen=leave_out
done
$lamella adapt "$glas" method.name=prompted "model=$sam2" -o "$WORK/glas_tuned" data.dataset.mpp=0.62 data.mpp=0.62 \
  data.dataset.mask_classes.gland=255 data.folds=5 data.fold=0 data.views=1 data.augment.elastic=0 \
  method.corrections=1 data.objects=3 budget.epochs=3
$lamella evaluate "$WORK/glas_tuned" "$WORK/four/glas/manifest.csv" -o "$WORK/glas_tuned_results" "rival=$sam2" \
  dataset.mpp=0.62 dataset.mask_classes.gland=255 mpp=0.62 seen=leave_out 'protocol.clicks=[1,3,5]' \
  'protocol.prompts=[clicks,box]'
$lamella predict "$WORK/glas_sam2/fold0/model" "$DATA/slides/TCGA-AA-3562-region.tif" -o "$WORK/glas_on_slide" within_tissue=true

# Weak segmentation. Generated cohorts of seed 7; settings were chosen on other seeds.
for cohort in two four focal; do
  $python $OUT/make_cohort.py $cohort "$WORK/$cohort"
done
two=("data.slides=$WORK/two/manifest.csv") supervised_two='{gland: 1, lymphoid: 3}'
four=("data.slides=$WORK/four/manifest.csv" 'class_order=[gland,stroma,lymphoid,solid]' train.budget.epochs=15
  'data.mask_values={gland: [1], stroma: [2], lymphoid: [3], solid: [4]}')
supervised_four='{gland: 1, stroma: 2, lymphoid: 3, solid: 4}'
one_tile=(train.method.pooling.kind=none train.batches.tiles_per_bag=1)  # the source's way
as_many_tiles=("${one_tile[@]}" train.batches.batch_size=64 train.batches.samples_per_epoch=1280)
classifier=(train.method.model.scores=linear train.method.model.tile_pooling=mean)
learn() {  # stages 0 to 3 into a folder
  for stage in coordinates features prototypes train; do $lamella weak $stage "$1" -o "$2" "${@:3}"; done
}
for cohort in two four; do
  declare -n told=$cohort masks=supervised_$cohort
  weak=$WORK/weak_$cohort
  learn $OUT/weak_slides.yaml "${weak}_source" "${told[@]}" "${one_tile[@]}"
  learn $OUT/weak_slides.yaml "${weak}_many" "${told[@]}" "${as_many_tiles[@]}"
  $lamella weak train $OUT/weak_slides.yaml -o "${weak}_cam" "${told[@]}" "${classifier[@]}"
  $lamella adapt "$WORK/$cohort/images.csv" -o "${weak}_masks" method.name=automatic \
    method.backbone.name=efficientnet method.backbone.train=frozen data.dataset.mpp=0.5 data.mpp=1.0 data.tile_px=128 \
    data.views=4 budget.epochs=12 "data.dataset.mask_classes=$masks"
  $lamella weak run $OUT/weak_slides.yaml -o "$weak" "${told[@]}" "evaluate.rivals={slide label on one random tile: \
${weak}_source/training, the same with eight times the tiles: ${weak}_many/training, CAM of a plain classifier: \
${weak}_cam/training, supervised FPN: ${weak}_masks}"
done
focal=("data.slides=$WORK/focal/manifest.csv")  # two small classes
learn $OUT/weak_slides.yaml "$WORK/weak_focal_source" "${focal[@]}" "${one_tile[@]}"
learn $OUT/weak_slides.yaml "$WORK/weak_focal_many" "${focal[@]}" "${as_many_tiles[@]}"
learn $OUT/weak_slides.yaml "$WORK/weak_focal_attention" "${focal[@]}" train.method.pooling.kind=attention
learn $OUT/weak_slides.yaml "$WORK/weak_focal_eighth" "${focal[@]}" train.method.pooling.top_fraction=0.125
learn $OUT/weak_slides.yaml "$WORK/weak_focal" "${focal[@]}"
$lamella weak evaluate $OUT/weak_slides.yaml -o "$WORK/weak_focal" "${focal[@]}" evaluate.refine=null "evaluate.rivals={\
slide label on one random tile: $WORK/weak_focal_source/training, the same with eight times the tiles: \
$WORK/weak_focal_many/training, MIL by attention: $WORK/weak_focal_attention/training, MIL by the strongest eighth: \
$WORK/weak_focal_eighth/training}"

$lamella weak run $OUT/weak_patches.yaml -o "$WORK/weak_patches" "data.slides=$WORK/two/patches_then_slides.csv" \
  "evaluate.rivals={labels of slides: $WORK/weak_two/training, supervised FPN: $WORK/weak_two_masks}"
$lamella weak run $OUT/weak_patches.yaml -o "$WORK/weak_patches_four" "${four[@]}" train.budget.epochs=8 \
  "data.slides=$WORK/four/patches_then_slides.csv" evaluate.refine=null \
  "evaluate.rivals={labels of slides: $WORK/weak_four/training, supervised FPN: $WORK/weak_four_masks}"

# Glands, patches labelled gland or no gland.
$python $OUT/cut_gland_patches.py "$glas" "$WORK/gland_patches"
patches=("data.slides=$WORK/gland_patches/manifest.csv" train.folds=5)
learn $OUT/weak_glands.yaml "$WORK/weak_glands_top" "${patches[@]}" train.method.model.tile_pooling=top \
  train.method.model.top_fraction=0.4
$lamella weak train $OUT/weak_glands.yaml -o "$WORK/weak_glands_cam" "${patches[@]}" "${classifier[@]}"
learn $OUT/weak_glands.yaml "$WORK/weak_glands" "${patches[@]}"
$lamella weak evaluate $OUT/weak_glands.yaml -o "$WORK/weak_glands" "${patches[@]}" \
  'evaluate.rival_classes={foreground: gland}' "evaluate.rivals={\"the same, tile_pooling=top\": \
$WORK/weak_glands_top/training, CAM of a plain classifier: $WORK/weak_glands_cam/training, supervised FPN on SAM 2: \
$WORK/glas_sam2}"
$lamella weak predict $OUT/weak_glands.yaml "$DATA/slides/TCGA-AA-3562-region.tif" -o "$WORK/weak_glands" "${patches[@]}" \
  predict.everywhere=false "predict.model=$WORK/weak_glands/training/fold0/model" predict.overlap_ratio=0.25

# Expression. her2st: patients A and C left out in turn, the four targets of the data notes.
$python $OUT/make_her2st_manifest.py "$DATA/expression/her2st" "$WORK/her2st/manifest.csv"
her2st() {  # a folder, and settings
  $lamella expression run $OUT/expression_her2st.yaml -o "$WORK/her2st/$1" "data.slides=$WORK/her2st/manifest.csv" \
    "features.cache=$WORK/her2st/cache" "${@:2}"
}
her2st 785 data.target=log10_library panel.choose=variance panel.variance_of=log10_library panel.number=785
her2st smoothed data.target=log_cpm_smoothed
her2st log_cpm
her2st 50 data.target=log1p panel.choose=variance panel.variance_of=log1p panel.number=50

# A generated cohort of Visium HD, seed 7; settings were chosen on seed 0.
$python $OUT/make_expression_cohort.py "$WORK/expression_hd" hd 7
$lamella expression run $OUT/expression_hd.yaml -o "$WORK/expression" "data.slides=$WORK/expression_hd/manifest.csv" "features.cache=$WORK/expression_hd/features"
# The same cell, taught by the very patients that the ridge learns from.
for stage in train evaluate; do
  $lamella expression $stage $OUT/expression_hd.yaml -o "$WORK/expression_same" "data.slides=$WORK/expression_hd/manifest.csv" \
    "features.cache=$WORK/expression_hd/features" grid.loss=[] grid.fusion=[] grid.decoder=[] grid.views=[] grid.encoder=[] grid.controls=[] \
    train.validation.criterion=none "evaluate.baselines.encoders=[efficientnet]" evaluate.baselines.retrieval=false \
    evaluate.baselines.random_encoder=null evaluate.pictures.number=0
done
