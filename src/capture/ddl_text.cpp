#include "capture/ddl_text.hpp"

#include <algorithm>
#include <initializer_list>

#include "postgres/prelude.hpp"

extern "C" {
#include "lib/stringinfo.h"
#include "parser/scanner.h"
#include "parser/scansup.h"
}

namespace eventbus::capture {

namespace {

constexpr const char* hidden = "***";

bool is_one_of(const char* tag, std::initializer_list<const char*> tags) {
    return std::any_of(tags.begin(), tags.end(), [tag](const char* known) { return strcmp(tag, known) == 0; });
}

bool makes_function(const char* tag) {
    return is_one_of(tag, {"CREATE FUNCTION", "CREATE PROCEDURE"});
}

// Whether SET in it gives a function a parameter.
bool sets_parameters(const char* tag) {
    return makes_function(tag) || is_one_of(tag, {"ALTER FUNCTION", "ALTER PROCEDURE", "ALTER ROUTINE"});
}

// The tokens of a command, by PostgreSQL's own scanner. Numbers of tokens are no header's from 16 on; what a token is
// follows from where it begins.
class Scanner {
 public:
    explicit Scanner(const char* text) : text_(text) {
        scanner_ = scanner_init(text, &extra_, &ScanKeywords, ScanKeywordTokens);
        extra_.escape_string_warning = false;  // it has been given
        next();
    }
    void finish() { scanner_finish(scanner_); }
    void next() {
        token_ = core_yylex(&value_, &begin_, scanner_);
        if (at_end()) begin_ = static_cast<YYLTYPE>(strlen(text_));
    }
    [[nodiscard]] bool at_end() const { return token_ == 0; }
    [[nodiscard]] int begin() const { return begin_; }
    [[nodiscard]] bool is(char self) const { return token_ == self; }
    [[nodiscard]] bool is_word(const char* word) const {
        const Size length = strlen(word);
        const char* at = text_ + begin_;
        if (pg_strncasecmp(at, word, length) != 0) return false;
        const char after = at[length];
        return !(isalnum(static_cast<unsigned char>(after)) || after == '_' || after == '$' || IS_HIGHBIT_SET(after));
    }
    // '…', E'…', B'…', X'…', N'…', U&'…' or $…$…$…$, and no parameter $1.
    [[nodiscard]] bool is_string() const {
        const char* at = text_ + begin_;
        if (*at == '$') return at[1] < '0' || at[1] > '9';
        if (strchr("eEbBxXnN", *at) != nullptr && at[1] == '\'') return true;
        if ((*at == 'u' || *at == 'U') && at[1] == '&') return at[2] == '\'';
        return *at == '\'';
    }

 private:
    const char* text_;
    core_yy_extra_type extra_ = {};
    core_yyscan_t scanner_ = nullptr;
    core_YYSTYPE value_ = {};
    YYLTYPE begin_ = 0;
    int token_ = 0;
};

class Copy {
 public:
    explicit Copy(const char* text) : text_(text) { initStringInfo(&made_); }
    // Up to there the text is as it was.
    void take(int end) {
        appendBinaryStringInfo(&made_, text_ + from_, end - from_);
        from_ = end;
    }
    // From the end of what was taken to there it is hidden.
    void hide(int end) {
        appendStringInfoString(&made_, hidden);
        from_ = end;
    }
    void add(char c) { appendStringInfoChar(&made_, c); }
    [[nodiscard]] char* made() const { return made_.data; }

 private:
    const char* text_;
    StringInfoData made_ = {};
    int from_ = 0;
};

// The scanner is at a parenthesis, and behind the one that closes it then. What is in between is hidden.
void hide_in_parentheses(Scanner& scanner, Copy& copy) {
    if (!scanner.is('(')) return;
    scanner.next();
    if (scanner.is(')')) return;
    copy.take(scanner.begin());
    for (int depth = 1; !scanner.at_end(); scanner.next()) {
        if (scanner.is('(')) ++depth;
        if (scanner.is(')') && --depth == 0) break;
    }
    copy.hide(scanner.begin());
}

// The scanner is behind the name then, if there is one; parts of it are separated by dots.
void skip_name(Scanner& scanner) {
    scanner.next();
    while (scanner.is('.')) {
        scanner.next();
        scanner.next();
    }
}

// After EXECUTE: what a trigger gives its function.
void hide_trigger_arguments(Scanner& scanner, Copy& copy) {
    if (!scanner.is_word("function") && !scanner.is_word("procedure")) return;
    scanner.next();
    skip_name(scanner);
    hide_in_parentheses(scanner, copy);
}

// After SET: the values of NAME = … and NAME TO …, separated by commas, each a token and perhaps a sign. Without such a
// word it is none of a parameter that somebody has invented (SET TIME ZONE, SET SCHEMA, FROM CURRENT).
void hide_parameter(Scanner& scanner, Copy& copy) {
    skip_name(scanner);
    if (!scanner.is('=') && !scanner.is_word("to")) return;
    scanner.next();
    copy.take(scanner.begin());
    for (;;) {
        if (scanner.is('+') || scanner.is('-')) scanner.next();
        if (!scanner.at_end()) scanner.next();
        if (!scanner.is(',')) break;
        scanner.next();
    }
    copy.hide(scanner.begin());
    if (!scanner.at_end()) copy.add(' ');
}

// A string, where all of a command's are hidden.
void hide_string(Scanner& scanner, Copy& copy) {
    copy.take(scanner.begin());
    scanner.next();
    copy.hide(scanner.begin());
    if (!scanner.at_end()) copy.add(' ');
}

}  // namespace

char* without_secrets(const char* command, const char* tag, bool bodies) {
    const auto end = static_cast<int>(strlen(command));
    const bool hides_body = makes_function(tag) && !bodies;
    const bool hides_parameters = sets_parameters(tag);
    Scanner scanner(command);
    Copy copy(command);
    while (!scanner.at_end()) {
        if (hides_body && (scanner.is_word("begin") || scanner.is_word("return"))) {
            copy.take(scanner.begin());
            copy.hide(end);
            break;
        }
        if (hides_body && scanner.is_string()) {
            hide_string(scanner, copy);
            continue;
        }
        const bool options = scanner.is_word("options");
        const bool execute = scanner.is_word("execute");
        const bool set = hides_parameters && scanner.is_word("set");
        const bool begin = hides_parameters && scanner.is_word("begin");
        scanner.next();
        if (options) hide_in_parentheses(scanner, copy);
        if (execute) hide_trigger_arguments(scanner, copy);
        if (set) hide_parameter(scanner, copy);
        if (begin && scanner.is_word("atomic")) break;  // a body that is to be shown, with other SETs
    }
    scanner.finish();
    copy.take(end);
    return copy.made();
}

}  // namespace eventbus::capture
