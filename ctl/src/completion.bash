# Completion of switchctl for bash 4 and newer: source <(switchctl completion bash)
_switchctl() {
    # Put together what bash cut at : and =, up to the cursor.
    local left=${COMP_LINE:0:COMP_POINT} words=() i piece apart last
    for ((i = 0; i <= COMP_CWORD; i++)); do
        piece=${COMP_WORDS[i]}
        apart=0
        while [[ $left == [[:space:]]* ]]; do
            left=${left:1}
            apart=1
        done
        [[ $left == "$piece"* ]] || piece=$left
        last=$((${#words[@]} - 1))
        if ((i == 0 || apart)); then
            words+=("$piece")
        else
            words[last]+=$piece
        fi
        left=${left#"$piece"}
    done
    last=$((${#words[@]} - 1))
    local current=${words[last]} IFS=$'\013' program
    program=$(type -P -- "${words[0]}") || program=switchctl
    COMPREPLY=($(_CLAP_IFS="$IFS" _CLAP_COMPLETE_INDEX="$last" COMPLETE=bash \
        "$program" -- "${words[@]}" 2>/dev/null)) || { COMPREPLY=(); return; }
    # Bash replaces only what stands behind its last cut.
    local breaks=
    [[ $COMP_WORDBREAKS == *:* ]] && breaks+=:
    [[ $COMP_WORDBREAKS == *=* ]] && breaks+='='
    if [[ -n $breaks && $current == *["$breaks"]* ]]; then
        local tail=${current##*["$breaks"]}
        COMPREPLY=("${COMPREPLY[@]#"${current%"$tail"}"}")
    fi
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=/:] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -o bashdefault -F _switchctl switchctl
