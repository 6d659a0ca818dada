#include "decoder/lists.hpp"

#include <cctype>

namespace eventbus::decoder {

namespace {

bool is_space(char c) {
    return isspace(static_cast<unsigned char>(c)) != 0;
}

const char* skip_space(const char* at) {
    while (is_space(*at)) ++at;
    return at;
}

// Calls take(begin, length) for each word; an empty text has none.
template <typename Take>
bool split(const char* text, bool empty_words, Take take) {
    const char* at = skip_space(text);
    if (*at == '\0') return true;
    for (;;) {
        const char* begin = at;
        while (*at != '\0' && *at != ',' && !is_space(*at)) {
            if (*at == '\\' && at[1] != '\0') ++at;
            ++at;
        }
        if (at == begin && !empty_words) return false;
        const char* end = at;
        at = skip_space(at);
        if (*at != '\0' && *at != ',') return false;
        if (!take(begin, static_cast<Size>(end - begin))) return false;
        if (*at == '\0') return true;
        at = skip_space(at + 1);
    }
}

// The part of a name up to `stop` (or the end), unescaped; `at` is moved behind it.
char* take_name(const char** at, const char* end, char stop) {
    auto* name = static_cast<char*>(palloc(static_cast<Size>(end - *at) + 1));
    char* to = name;
    while (*at < end && **at != stop) {
        if (**at == '\\' && *at + 1 < end) ++*at;
        *to++ = *(*at)++;
    }
    *to = '\0';
    return name;
}

// Whether a pattern fits the whole name. Falls back to the latest "*" alone, which may always take more where an
// earlier one could: at most pattern x name steps, for the name may be anybody's.
bool fits_pattern(const char* pattern, const char* name) {
    const char* behind_star = nullptr;
    const char* taken = nullptr;  // by that star, up to here
    for (;;) {
        if (*pattern == '*') {
            behind_star = ++pattern;
            taken = name;
            continue;
        }
        if (*name == '\0') return *pattern == '\0';
        const bool escaped = *pattern == '\\' && pattern[1] != '\0';
        const char* letter = escaped ? pattern + 1 : pattern;
        if (*letter == *name || (*pattern == '?' && !escaped)) {
            pattern = letter + 1;
            ++name;
        } else if (behind_star != nullptr) {
            pattern = behind_star;
            name = ++taken;
        } else {
            return false;
        }
    }
}

bool is_among(List* tables, const char* schema, const char* table) {
    ListCell* cell;
    foreach (cell, tables) {
        auto* selected = static_cast<SelectedTable*>(lfirst(cell));
        if ((selected->schema == nullptr || strcmp(selected->schema, schema) == 0) &&
            (selected->table == nullptr || strcmp(selected->table, table) == 0))
            return true;
    }
    return false;
}

bool is_word(List* words, const char* text) {
    ListCell* cell;
    foreach (cell, words)
        if (strcmp(static_cast<char*>(lfirst(cell)), text) == 0) return true;
    return false;
}

}  // namespace

bool split_words(const char* text, List** words) {
    return split(text, false, [&](const char* begin, Size length) {
        *words = lappend(*words, pnstrdup(begin, length));
        return true;
    });
}

bool split_oids(const char* text, List** oids) {
    return split(text, true, [&](const char* begin, Size length) {
        *oids = lappend_oid(*oids, static_cast<Oid>(atoi(pnstrdup(begin, length))));
        return true;
    });
}

bool split_tables(const char* text, List** tables) {
    return split(text, false, [&](const char* begin, Size length) {
        const char* end = begin + length;
        const char* at = begin;
        auto* table = static_cast<SelectedTable*>(palloc0(sizeof(SelectedTable)));
        bool any_schema = length > 1 && begin[0] == '*' && begin[1] == '.';
        char* schema = take_name(&at, end, '.');
        if (at == end) return false;
        ++at;
        bool any_table = end - at == 1 && *at == '*';
        char* name = take_name(&at, end, '\0');
        table->schema = any_schema ? nullptr : schema;
        table->table = any_table ? nullptr : name;
        *tables = lappend(*tables, table);
        return true;
    });
}

bool read_patterns(const char* text, bool qualified, List** patterns) {
    return split(text, false, [&](const char* begin, Size length) {
        auto* pattern = static_cast<Pattern*>(palloc0(sizeof(Pattern)));
        pattern->except = *begin == '-';
        char* word = pnstrdup(begin + pattern->except, length - pattern->except);
        pattern->name = word;
        if (qualified) {
            char* dot = word;
            while (*dot != '\0' && *dot != '.') dot += *dot == '\\' && dot[1] != '\0' ? 2 : 1;
            if (*dot == '\0') return false;
            *dot = '\0';
            pattern->schema = word;
            pattern->name = dot + 1;
        }
        *patterns = lappend(*patterns, pattern);
        return *pattern->name != '\0';
    });
}

bool fits(List* patterns, const char* schema, const char* name) {
    bool only_exceptions = true;
    bool chosen = false;
    ListCell* cell;
    foreach (cell, patterns) {
        auto* pattern = static_cast<Pattern*>(lfirst(cell));
        bool fit =
            (pattern->schema == nullptr || fits_pattern(pattern->schema, schema)) && fits_pattern(pattern->name, name);
        if (fit && pattern->except) return false;
        if (!pattern->except) only_exceptions = false;
        chosen = chosen || (fit && !pattern->except);
    }
    return chosen || only_exceptions;
}

bool wants_table(const Options& options, const char* schema, const char* table) {
    return strcmp(schema, own_schema) != 0 && !is_among(options.filter_tables, schema, table) &&
           (options.add_all_tables || is_among(options.add_tables, schema, table)) &&
           fits(options.tables, schema, table);
}

bool wants_message(const Options& options, const char* prefix) {
    return !is_word(options.filter_prefixes, prefix) &&
           (options.add_prefixes == NIL || is_word(options.add_prefixes, prefix)) &&
           fits(options.messages, nullptr, prefix);
}

}  // namespace eventbus::decoder
