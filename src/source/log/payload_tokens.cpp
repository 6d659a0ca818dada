#include "source/log/payload_tokens.hpp"

#include <algorithm>

#include "postgres/encoding.hpp"
#include "postgres/envelope.hpp"
#include "postgres/guest.hpp"
#include "settings/settings.hpp"

extern "C" {
#include "commands/dbcommands.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"
}

namespace eventbus::log {

namespace {

// What this database's events have in their source; rendered once a setting, for neither name changes while anybody is
// here.
void append_source(StringInfo out) {
    static StringInfoData source = {};
    static StringInfoData setting = {};
    if (source.data == nullptr || strcmp(setting.data, settings::source) != 0) {
        MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);
        if (setting.data == nullptr) initStringInfo(&setting);
        if (source.data == nullptr) initStringInfo(&source);
        MemoryContextSwitchTo(caller);
        const char* name = settings::source_name();
        const char* database = readable_name(get_database_name(MyDatabaseId));
        resetStringInfo(&source);
        eventbus::put(&source, ",\"source\":{");
        append_source_names(&source, name, database);
        eventbus::put(&source, "\"schema\":");
        resetStringInfo(&setting);
        appendStringInfoString(&setting, settings::source);
    }
    eventbus::put(out, source.data, source.len);
}

void append_integer(StringInfo out, int64 number) {
    char digits[MAXINT8LEN + 1];
    eventbus::put(out, digits, pg_lltoa(number, digits));
}

void append_subject(StringInfo out, const Context& context);

void append_phrase(StringInfo out, PayloadToken phrase, const Context& context) {
    switch (phrase) {
        case PayloadToken::no_before:
            eventbus::put(out, "{\"before\":null,\"after\":");
            return;
        case PayloadToken::source:
            append_source(out);
            return;
        case PayloadToken::table:
            eventbus::put(out, ",\"table\":");
            return;
        case PayloadToken::transaction:
            eventbus::put(out, ",\"txId\":");
            append_integer(out, static_cast<int64>(context.xid));
            eventbus::put(out, ",\"ts_ms\":");
            append_integer(out, to_unix_us(context.published_at) / 1000);
            eventbus::put(out, ",\"lsn\":null,\"snapshot\":false},\"op\":\"");
            return;
        case PayloadToken::time:
            eventbus::put(out, "\",\"ts_ms\":");
            append_integer(out, to_unix_us(context.published_at) / 1000);
            return;
        case PayloadToken::subject:
            append_subject(out, context);
            return;
    }
}

void append_subject(StringInfo out, const Context& context) {
    std::string_view topic = context.topic;
    auto next_word = [&] {
        std::string_view word = topic.substr(0, topic.find('.'));
        topic.remove_prefix(std::min(word.size() + 1, topic.size()));
        return word;
    };
    append_phrase(out, PayloadToken::source, context);
    append_json_string(out, next_word());
    append_phrase(out, PayloadToken::table, context);
    append_json_string(out, next_word());
    append_phrase(out, PayloadToken::transaction, context);
    // Whoever calls captured_payload may name another topic than captures do.
    if (topic.starts_with('i')) eventbus::put(out, 'c');
    if (topic.starts_with('u') || topic.starts_with('d') || topic.starts_with('t')) eventbus::put(out, topic.front());
    append_phrase(out, PayloadToken::time, context);
}

JsonbValue string_value(std::string_view text) {
    JsonbValue value;
    value.type = jbvString;
    value.val.string.val = const_cast<char*>(text.data());
    value.val.string.len = static_cast<int>(text.size());
    return value;
}

Datum made_headers(uint64 xid, std::string_view user) {
    JsonbParseState* build = nullptr;
    pushJsonbValue(&build, WJB_BEGIN_OBJECT, nullptr);
    JsonbValue value = string_value("pg-txid");
    pushJsonbValue(&build, WJB_KEY, &value);
    value.type = jbvNumeric;
    value.val.numeric = DatumGetNumeric(DirectFunctionCall1(int8_numeric, Int64GetDatum(static_cast<int64>(xid))));
    pushJsonbValue(&build, WJB_VALUE, &value);
    value = string_value("pg-user");
    pushJsonbValue(&build, WJB_KEY, &value);
    value = string_value(user);
    pushJsonbValue(&build, WJB_VALUE, &value);
    return PointerGetDatum(JsonbValueToJsonb(pushJsonbValue(&build, WJB_END_OBJECT, nullptr)));
}

}  // namespace

void append_whole(StringInfo out, std::string_view stored, const Context& context) {
    constexpr auto last = static_cast<unsigned char>(PayloadToken::subject);
    const char* plain = stored.data();
    const char* end = stored.data() + stored.size();
    for (const char* at = plain; at < end; ++at) {
        auto c = static_cast<unsigned char>(*at);
        if (c == 0 || c > last) continue;
        eventbus::put(out, plain, static_cast<int>(at - plain));
        append_phrase(out, static_cast<PayloadToken>(c), context);
        plain = at + 1;
    }
    eventbus::put(out, plain, static_cast<int>(end - plain));
}

void append_headers(StringInfo out, const Jsonb* extra, uint64 xid, std::string_view user) {
    if (extra == nullptr) {
        eventbus::put(out, "{\"pg-txid\": ");
        append_integer(out, static_cast<int64>(xid));
        eventbus::put(out, ", \"pg-user\": ");
        append_json_string(out, user);
        eventbus::put(out, '}');
        return;
    }
    MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "pg_eventbus headers", ALLOCSET_SMALL_SIZES);
    MemoryContext caller = MemoryContextSwitchTo(scratch);
    Jsonb* all = DatumGetJsonbP(DirectFunctionCall2(jsonb_concat, PointerGetDatum(extra), made_headers(xid, user)));
    MemoryContextSwitchTo(caller);
    JsonbToCString(out, &all->root, static_cast<int>(VARSIZE(all)));
    MemoryContextDelete(scratch);
}

}  // namespace eventbus::log

extern "C" {
EVENTBUS_SQL_FUNCTION(eventbus_captured_payload);
}

Datum eventbus_captured_payload(PG_FUNCTION_ARGS) {
    StringInfoData out;
    initStringInfo(&out);
    out.len = VARHDRSZ;
    eventbus::log::append_whole(&out, eventbus::text_view(PG_GETARG_TEXT_PP(0)),
                                {eventbus::text_view(PG_GETARG_TEXT_PP(1)),
                                 U64FromFullTransactionId(PG_GETARG_FULLTRANSACTIONID(2)), PG_GETARG_TIMESTAMPTZ(3)});
    SET_VARSIZE(out.data, out.len);
    PG_RETURN_TEXT_P(out.data);
}
