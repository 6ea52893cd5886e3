# What `.ci/models` and `.ci/seeded-bugs` share: building the models, listing them. To be sourced.

root=$PWD
logs=$root/${logs:-target/models}
rm -rf "$logs"
mkdir -p "$logs"

# Builds the models of the tree in the working directory for a checker; prints the path of the
# binary. More arguments go to cargo.
build_models() {
    local checker=$1
    shift
    RUSTFLAGS="--cfg workcrew_model --cfg workcrew_$checker" CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true \
        cargo test --release --lib --no-run --features events --target-dir "$root/target/$checker" \
        --message-format=json "$@" 2> "$logs/build-$checker.log" |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' || {
        cat "$logs/build-$checker.log" >&2
        return 1
    }
}

# The names of the models in a binary that match a pattern. Scenarios exist for shuttle only.
models_of() {
    "$1" --list 2> /dev/null | sed -n 's/^\(models::.*\): test$/\1/p' | grep -e "$2" || true
}
