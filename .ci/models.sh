# What `.ci/models` and `.ci/score` share: building the models, listing them. To be sourced.

logs=target/models
rm -rf "$logs"
mkdir -p "$logs"

# Builds the models for a checker; prints the path of the binary.
build_models() {
    RUSTFLAGS="--cfg workcrew_model --cfg workcrew_$1" CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true \
        cargo test --release --lib --no-run --features events --target-dir "target/$1" --message-format=json 2> "$logs/build-$1.log" |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' || {
        cat "$logs/build-$1.log" >&2
        return 1
    }
}

# The names of the models in a binary that match a pattern. What is for shuttle alone is not in loom's.
models_of() {
    "$1" --list 2> /dev/null | sed -n 's/^\(models::.*\): test$/\1/p' | grep -e "$2" || true
}
