#include "catalog/wal_selection.hpp"

#include "postgres/encoding.hpp"
#include "postgres/guest.hpp"
#include "router/route.hpp"
#include "source/wal/preflight.hpp"

namespace eventbus::catalog {

wal::Selection wal_selection(const char* options, const broker::Module& module) {
    std::string_view utf8 = to_utf8_or_marks(options);
    auto* read = call_guest([&] {
        return new router::RouteOptions(router::read_route_options({router::known_route_options(module), utf8}));
    });
    auto text = [](const std::optional<std::string>& given) { return given ? from_utf8(*given) : nullptr; };
    const router::WalOptions& wal = read->wal;
    wal::Selection selection = {text(wal.tables),   text(wal.publication), text(wal.operations),
                                text(wal.messages), text(wal.format),      wal.local_only};
    call_guest([&] { delete read; });
    return selection;
}

// Asks what of a selection a route with these topics takes.
template <typename Question>
static auto ask_for_topics(const wal::Selection& selection, const char* topics, Question question) {
    const std::string_view patterns = to_utf8_or_marks(topics);
    auto* filter = call_guest([&] { return new router::TopicFilter(patterns); });
    auto wants = [](void* context, std::string_view topic) {
        return call_guest([&] { return static_cast<const router::TopicFilter*>(context)->matches(topic); });
    };
    auto answer = question(selection, wal::AskForTopic{wants, filter});
    call_guest([&] { delete filter; });
    return answer;
}

const char* tables_without_identity(const wal::Selection& selection, const char* topics) {
    return ask_for_topics(selection, topics, wal::tables_without_identity);
}

const char* contradicted_table(const wal::Selection& selection, const char* topics) {
    return ask_for_topics(selection, topics, wal::contradicted_table);
}

bool names_tables_in_vain(const wal::Selection& selection, const char* topics) {
    return ask_for_topics(selection, topics, wal::names_tables_in_vain);
}

bool takes_nothing(const wal::Selection& selection, const char* topics) {
    return ask_for_topics(selection, topics, wal::takes_nothing);
}

const char* topics_without_rows(const wal::Selection& selection, const char* topics) {
    return ask_for_topics(selection, topics, wal::topics_without_rows);
}

const char* pattern_of_topics(const char* messages) {
    if (messages == nullptr) return nullptr;
    for (const char* start = messages; *start != '\0'; start += *start == ',' ? 1 : 0) {
        while (*start == ' ') ++start;
        size_t length = strcspn(start, ",");
        for (const char* at = start; (at = strchr(at, '#')) != nullptr && at < start + length; ++at) {
            bool begins = at == start || at[-1] == '.' || at[-1] == '-';
            bool ends = at + 1 == start + length || at[1] == '.' || at[1] == ' ';
            if (begins && ends) return pnstrdup(start, length);
        }
        start += length;
    }
    return nullptr;
}

}  // namespace eventbus::catalog
