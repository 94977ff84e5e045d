# Completion of sessionctl: its commands and flags are asked of itself.
_sessionctl() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} i
    COMPREPLY=()
    case $before in
    --socket) mapfile -t COMPREPLY < <(compgen -f -- "$word") && return ;;
    --store) mapfile -t COMPREPLY < <(compgen -W "$(sessionctl stores 2>/dev/null | cut -d' ' -f1)" -- "$word") && return ;;
    --owner | --limit | --every | --times) return ;;
    esac
    if [[ $word = -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(sessionctl --help | grep -oE '^  --[a-z]+')" -- "$word")
        return
    fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        --socket | --store | --owner | --limit | --every | --times) ((i++)) ;;
        -*) ;;
        backup | verify | add) mapfile -t COMPREPLY < <(compgen -f -- "$word") && return ;;
        *) return ;;
        esac
    done
    mapfile -t COMPREPLY < <(compgen -W "$(sessionctl --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p')" -- "$word")
} && complete -o filenames -F _sessionctl sessionctl
