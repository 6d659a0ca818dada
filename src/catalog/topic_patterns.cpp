#include "catalog/topic_patterns.hpp"

#include <algorithm>

#include "catalog/arguments.hpp"
#include "router/route.hpp"

namespace eventbus::catalog {

void refuse_what_is_no_pattern(const char* topics) {
    const bool is_object = topics[strspn(topics, " \t\r\n")] == '{';
    const char* mark = strpbrk(topics, "\";");
    if (!is_object && mark == nullptr) return;
    const bool is_options =
        is_object && (strchr(topics, ':') != nullptr || strpbrk(topics, "}") == topics + strspn(topics, " \t\r\n{"));
    ereport(ERROR,
            (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
             is_options  ? errmsg("topics look like options: %s", topics)
             : is_object ? errmsg("topics look like a template: %s", topics)
                         : errmsg("topics have a %c: %s", *mark, topics),
             is_options
                 ? errhint("Name the argument: options => '...'. Topics are patterns such as 'shop.order.*, shop.#'; "
                           "left out, they are all.")
             : is_object    ? errhint("Placeholders are for the destination. Topics are patterns such as "
                                         "'shop.order.*, shop.#': * is one word, # zero or more.")
             : *mark == ';' ? errhint("Patterns are separated by commas, as in 'shop.order.*, shop.#'.")
                            : errhint("Patterns have no quotes around them, as in 'shop.order.*, shop.#'.")));
}

void tell_of_odd_patterns(const char* topics) {
    const router::TopicFilter* filter = read_patterns(topics);
    for (std::size_t i = 0; i < filter->size(); ++i) {
        const std::string_view pattern = filter->pattern(i);
        char* dotted = pnstrdup(pattern.data(), pattern.size());
        const std::size_t at = pattern.find_first_of("/ %");
        if (at == std::string_view::npos) continue;
        if (pattern[at] == '%') {
            ereport(NOTICE, (errmsg("topic pattern \"%s\" has a percent sign", dotted),
                             errdetail("It fits topics with that character in them."),
                             errhint("If that is not meant, write * for one word and # for zero or more, as in "
                                     "'shop.order.*, shop.#'.")));
            continue;
        }
        std::replace_if(
            dotted, dotted + pattern.size(), [](char c) { return c == '/' || c == ' '; }, '.');
        ereport(NOTICE, (errmsg("topic pattern \"%.*s\" has a slash or a blank in a word",
                                static_cast<int>(pattern.size()), pattern.data()),
                         errdetail("Words of topics are joined by dots; it fits topics with that character in them."),
                         errhint("If that is not meant, write \"%s\".", dotted)));
    }
}

}  // namespace eventbus::catalog
