#!/usr/bin/env bash
# Makes the simulator's media: a loop of 24 s, video with a running clock and a beep each second,
# without a seam. Needs ffmpeg with libx264 and the DejaVu fonts. The program contains the files in
# this folder, so run this script only to change them.
#
# src/simulator/media_assets.rs relies on this: 30 frames a second without B-frames, an IDR picture
# every two seconds and nowhere else, 720 pictures; AAC at 48 kHz, 1125 frames of 1024 samples; each
# file an empty moov and one fragment.
set -euo pipefail
cd "$(dirname "$0")"

seconds=24
one_fragment=(-movflags +empty_moov+default_base_moof+frag_custom -fflags +bitexact
    -map_metadata -1 -metadata:s encoder= -metadata:s handler_name=)

# picture SIZE FONT_SIZE CRF LEVEL FILE
picture() {
    local clock="drawtext=font=DejaVu Sans Mono:fontsize=$2:fontcolor=white:box=1:boxcolor=black@0.8:boxborderw=8"
    clock+=":x=(w-text_w)/2:y=(h-text_h)/2:text='%{eif\\:floor(t)\\:d\\:2}.%{eif\\:mod(n\\,30)\\:d\\:2}'"
    local name="drawtext=font=DejaVu Sans Mono:fontsize=$(($2 / 2)):fontcolor=white:x=8:y=8:text='$1'"
    # A bar that crosses the picture once per loop.
    local bar="drawbox=x=0:y=ih-12:w=iw:h=12:color=black:t=fill[base];"
    bar+="color=c=orange:s=${1%x*}x12:r=30:d=$seconds[bar];"
    bar+="[base][bar]overlay=x='-w+w*t/$seconds':y=H-12:shortest=1"
    ffmpeg -hide_banner -loglevel error -y \
        -f lavfi -i "smptehdbars=size=$1:rate=30:duration=$seconds" \
        -filter_complex "[0:v]$clock,$name,$bar,format=yuv420p[v]" -map '[v]' \
        -c:v libx264 -profile:v main -level "$4" -preset veryslow -crf "$3" -bf 0 -refs 2 \
        -g 60 -keyint_min 60 -sc_threshold 0 -x264-params "scenecut=0:open-gop=0:bframes=0" \
        -flags +bitexact+cgop -video_track_timescale 30000 "${one_fragment[@]}" "$5"
}

# A soft hum; a short beep at each full second, a higher one at the start of the loop.
sound() {
    local folder
    folder=$(mktemp -d)
    ffmpeg -hide_banner -loglevel error -y -f lavfi \
        -i "aevalsrc='0.03*sin(2*PI*110*t)+0.25*sin(2*PI*t*if(lt(t,1),1320,880))*lt(mod(t,1),0.08)':s=48000:d=$((seconds + 1))" \
        -c:a aac -b:a 48k -ac 1 -flags +bitexact "$folder/sound.aac"
    # Through a plain MP4 first: ffmpeg writes an empty moov before it has the decoder configuration
    # from ADTS.
    ffmpeg -hide_banner -loglevel error -y -i "$folder/sound.aac" -c copy -bsf:a aac_adtstoasc \
        -frames:a 1125 "$folder/sound.mp4"
    ffmpeg -hide_banner -loglevel error -y -i "$folder/sound.mp4" -c copy "${one_fragment[@]}" "$1"
    rm -rf "$folder"
}

picture 640x360 72 26 3.0 360p.mp4
picture 320x180 36 27 1.3 180p.mp4
sound audio.mp4
ls -l -- *.mp4
