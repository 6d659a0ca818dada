// What it is: times, numbers and jsonb as JSON text: what most rows have, without PostgreSQL's parked keys.
// Who calls it: json.cpp.
// Never: knows better than PostgreSQL: what is not plain is left to it.
#include "postgres/json_values.hpp"

extern "C" {
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"
}

namespace eventbus {

namespace {

char* two_digits(char* at, int number) {
    at[0] = static_cast<char>('0' + number / 10);
    at[1] = static_cast<char>('0' + number % 10);
    return at + 2;
}

char* date_digits(char* at, int year, int month, int day) {
    at = two_digits(two_digits(at, year / 100), year % 100);
    *at++ = '-';
    at = two_digits(at, month);
    *at++ = '-';
    return two_digits(at, day);
}

char* fraction_digits(char* at, int microseconds) {
    if (microseconds == 0) return at;
    *at++ = '.';
    for (int unit = 100000; microseconds > 0; unit /= 10) {
        *at++ = static_cast<char>('0' + microseconds / unit);
        microseconds %= unit;
    }
    return at;
}

char* offset_digits(char* at, int seconds) {
    *at++ = seconds < 0 ? '-' : '+';
    int minutes = (seconds < 0 ? -seconds : seconds) / 60;
    at = two_digits(at, minutes / 60);
    *at++ = ':';
    return two_digits(at, minutes % 60);
}

// Seconds that the session's zone is ahead of UTC at a time (of Unix). It is the same from the last time asked for to
// the zone's next change of clocks.
bool zone_offset(pg_time_t time, int* offset) {
    static struct {
        const pg_tz* zone = nullptr;
        pg_time_t from = 0, until = 0;
        int offset = 0;
    } known;
    if (known.zone != session_timezone || time < known.from || time >= known.until) {
        long before;
        long after;
        int before_is_dst;
        int after_is_dst;
        pg_time_t boundary = PG_INT64_MAX;
        if (pg_next_dst_boundary(&time, &before, &before_is_dst, &boundary, &after, &after_is_dst, session_timezone) <
            0)
            return false;
        known.zone = session_timezone;
        known.from = time;
        known.until = boundary;
        known.offset = static_cast<int>(before);
    }
    *offset = known.offset;
    return known.offset % 60 == 0;
}

constexpr int64 epoch_seconds = static_cast<int64>(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY;

bool is_plain(int year) {
    return year >= 1 && year <= 9999;
}

char* four_digits(char* at, int group) {
    return two_digits(two_digits(at, group / 100), group % 100);
}

// A numeric as it is stored when it is neither huge nor special: a header with sign, scale and weight, then groups of
// four digits, of which the first stands for 10000 to the power of the weight.
struct StoredNumeric {
    static constexpr uint16 kind = 0xC000, is_short = 0x8000, negative = 0x2000, scale_bits = 0x1F80,
                            negative_weight = 0x0040, weight_bits = 0x003F;
    static constexpr int longest = 64 * 4 + 64 + 8;  // as text
    uint16 header;
    const char* groups;
    int count;

    int scale() const { return (header & scale_bits) >> 7; }
    int weight() const { return (header & weight_bits) - ((header & negative_weight) != 0 ? weight_bits + 1 : 0); }
    int group(int index) const {
        if (index < 0 || index >= count) return 0;
        int16 value;
        memcpy(&value, groups + index * static_cast<int>(sizeof value), sizeof value);
        return value;
    }
};

int numeric_digits(const StoredNumeric& number, char* text) {
    char* at = text;
    if ((number.header & StoredNumeric::negative) != 0) *at++ = '-';
    const int weight = number.weight();
    at += pg_lltoa(number.group(weight < 0 ? -1 : 0), at);
    for (int i = 1; i <= weight; ++i) at = four_digits(at, number.group(i));
    if (number.scale() > 0) {
        *at++ = '.';
        char* end = at + number.scale();
        for (int i = weight + 1; at < end; ++i) at = four_digits(at, number.group(i));
        at = end;
    }
    return static_cast<int>(at - text);
}

void append_number(StringInfo out, Numeric number) {
    if (append_json_numeric(out, NumericGetDatum(number))) return;
    char* digits = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(number)));
    put(out, digits, static_cast<int>(strlen(digits)));
    pfree(digits);
}

void append_container(StringInfo out, JsonbContainer* container);

// A child of a container, whose own bytes begin at `base + offset`.
void append_child(StringInfo out, JEntry entry, char* base, uint32 offset) {
    if (JBE_ISSTRING(entry)) {
        append_json_string(out, {base + offset, JBE_OFFLENFLD(entry)});
    } else if (JBE_ISNUMERIC(entry)) {
        append_number(out, reinterpret_cast<Numeric>(base + INTALIGN(offset)));
    } else if (JBE_ISBOOL_TRUE(entry)) {
        put(out, "true");
    } else if (JBE_ISBOOL_FALSE(entry)) {
        put(out, "false");
    } else if (JBE_ISNULL(entry)) {
        put(out, "null");
    } else {
        append_container(out, reinterpret_cast<JsonbContainer*>(base + INTALIGN(offset)));
    }
}

// Every so many children an entry has the end of its bytes instead of their length.
uint32 length_of(JEntry entry, uint32 offset) {
    return JBE_HAS_OFF(entry) ? JBE_OFFLENFLD(entry) - offset : JBE_OFFLENFLD(entry);
}
JEntry with_length(JEntry entry, uint32 length) {
    return (entry & JENTRY_TYPEMASK) | length;
}

void append_container(StringInfo out, JsonbContainer* container) {
    check_stack_depth();
    const bool object = JsonContainerIsObject(container);
    const bool scalar = JsonContainerIsScalar(container);
    const uint32 count = JsonContainerSize(container);
    char* base = reinterpret_cast<char*>(&container->children[object ? 2 * count : count]);
    uint32 offset = object ? getJsonbOffset(container, static_cast<int>(count)) : 0;
    uint32 key_offset = 0;
    if (!scalar) put(out, object ? '{' : '[');
    for (uint32 i = 0; i < count; ++i) {
        if (i > 0) put(out, ", ");
        if (object) {
            uint32 length = length_of(container->children[i], key_offset);
            append_json_string(out, {base + key_offset, length});
            key_offset += length;
            put(out, ": ");
        }
        JEntry entry = container->children[object ? count + i : i];
        uint32 length = length_of(entry, offset);
        append_child(out, with_length(entry, length), base, offset);
        offset += length;
    }
    if (!scalar) put(out, object ? '}' : ']');
}

}  // namespace

bool append_json_numeric(StringInfo out, Datum value) {
    auto* stored = reinterpret_cast<varlena*>(DatumGetPointer(value));
    if (VARATT_IS_EXTERNAL(stored) || VARATT_IS_COMPRESSED(stored)) return false;
    const char* data = VARDATA_ANY(stored);
    StoredNumeric number;
    memcpy(&number.header, data, sizeof number.header);
    if ((number.header & StoredNumeric::kind) != StoredNumeric::is_short) return false;
    number.groups = data + sizeof number.header;
    number.count = static_cast<int>((VARSIZE_ANY_EXHDR(stored) - sizeof number.header) / sizeof(int16));
    char text[StoredNumeric::longest];
    put(out, text, numeric_digits(number, text));
    return true;
}

bool append_json_timestamp(StringInfo out, Timestamp time, bool with_zone) {
    if (TIMESTAMP_NOT_FINITE(time)) return false;
    int64 seconds = time / USECS_PER_SEC;
    auto microseconds = static_cast<int>(time % USECS_PER_SEC);
    if (microseconds < 0) {
        --seconds;
        microseconds += USECS_PER_SEC;
    }
    int offset = 0;
    if (with_zone && !zone_offset(seconds + epoch_seconds, &offset)) return false;
    seconds += offset;
    int64 days = seconds / SECS_PER_DAY;
    auto in_day = static_cast<int>(seconds % SECS_PER_DAY);
    if (in_day < 0) {
        --days;
        in_day += SECS_PER_DAY;
    }
    int year;
    int month;
    int day;
    j2date(static_cast<int>(days) + POSTGRES_EPOCH_JDATE, &year, &month, &day);
    if (!is_plain(year)) return false;

    char text[MAXDATELEN];
    char* at = text;
    *at++ = '"';
    at = date_digits(at, year, month, day);
    *at++ = 'T';
    at = two_digits(at, in_day / SECS_PER_HOUR);
    *at++ = ':';
    at = two_digits(at, in_day / SECS_PER_MINUTE % MINS_PER_HOUR);
    *at++ = ':';
    at = fraction_digits(two_digits(at, in_day % SECS_PER_MINUTE), microseconds);
    if (with_zone) at = offset_digits(at, offset);
    *at++ = '"';
    put(out, text, static_cast<int>(at - text));
    return true;
}

void append_jsonb(StringInfo out, Datum value) {
    auto* stored = reinterpret_cast<varlena*>(DatumGetPointer(value));
    if (VARATT_IS_EXTERNAL(stored) || !VARATT_IS_SHORT(stored)) {
        append_container(out, &DatumGetJsonbP(value)->root);
        return;
    }
    // A container's header wants its alignment.
    union {
        char bytes[VARATT_SHORT_MAX];
        JsonbContainer container;
    } aligned;
    memcpy(aligned.bytes, VARDATA_SHORT(stored), VARSIZE_SHORT(stored) - VARHDRSZ_SHORT);
    append_container(out, &aligned.container);
}

}  // namespace eventbus
