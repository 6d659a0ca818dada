// What it is: see ddl_text.hpp.
// Who calls it: see ddl_text.hpp.
// Never: see ddl_text.hpp.
#include "intake/ddl_text.hpp"

#include "postgres/prelude.hpp"

extern "C" {
#include "lib/stringinfo.h"
#include "parser/scanner.h"
#include "parser/scansup.h"
}

namespace eventbus::intake {

namespace {

constexpr const char* hidden = "***";

bool makes_function(const char* tag) {
    return strcmp(tag, "CREATE FUNCTION") == 0 || strcmp(tag, "CREATE PROCEDURE") == 0;
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
    void next() { token_ = core_yylex(&value_, &begin_, scanner_); }
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

// After the word OPTIONS. The scanner is behind its parentheses then.
void hide_options(Scanner& scanner, Copy& copy) {
    if (!scanner.is('(')) return;
    copy.take(scanner.begin() + 1);
    for (int depth = 0; !scanner.at_end(); scanner.next()) {
        if (scanner.is('(')) ++depth;
        if (scanner.is(')') && --depth == 0) break;
    }
    copy.hide(scanner.begin());
}

}  // namespace

char* without_secrets(const char* command, const char* tag, bool bodies) {
    const auto end = static_cast<int>(strlen(command));
    const bool hides_body = makes_function(tag) && !bodies;
    Scanner scanner(command);
    Copy copy(command);
    while (!scanner.at_end()) {
        const bool options = scanner.is_word("options");
        if (hides_body && (scanner.is_word("begin") || scanner.is_word("return"))) {
            copy.take(scanner.begin());
            copy.hide(end);
            break;
        }
        if (hides_body && scanner.is_string()) {
            copy.take(scanner.begin());
            scanner.next();
            copy.hide(scanner.at_end() ? end : scanner.begin());
            if (!scanner.at_end()) copy.add(' ');
            continue;
        }
        scanner.next();
        if (options) hide_options(scanner, copy);
    }
    scanner.finish();
    copy.take(end);
    return copy.made();
}

}  // namespace eventbus::intake
