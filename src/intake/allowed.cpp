#include "intake/allowed.hpp"

#include "postgres/guest.hpp"
#include "router/route.hpp"

extern "C" {
#include "access/tableam.h"
#include "catalog/namespace.h"
#include "catalog/pg_type_d.h"
#include "lib/stringinfo.h"
#include "utils/acl.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
}

namespace eventbus::intake {

namespace {

// What one role may publish.
struct Rule {
    Rule* next;
    Oid role;
    const char* patterns;         // nullptr: every topic
    router::TopicFilter* filter;  // of the patterns
};

// What this session remembers, until a message says that the table, a role or a membership has changed.
struct Memory {
    bool current = false;
    bool nobody = false;  // the table is empty
    Oid table = InvalidOid;
    MemoryContext rules_memory = nullptr;  // the rules, and their filters by a callback
    Rule* rules = nullptr;
};
Memory memory;

void table_changed(Datum, Oid relation) {
    if (relation == memory.table || !OidIsValid(relation) || !OidIsValid(memory.table)) memory.current = false;
}
void roles_changed(Datum, int, uint32) {
    memory.current = false;
}

void forget_all() {
    if (memory.rules_memory == nullptr) {
        memory.rules_memory = AllocSetContextCreate(CacheMemoryContext, "eventbus topic grants", ALLOCSET_SMALL_SIZES);
        CacheRegisterRelcacheCallback(table_changed, 0);
        CacheRegisterSyscacheCallback(AUTHOID, roles_changed, 0);
        CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, roles_changed, 0);
        CacheRegisterSyscacheCallback(DATABASEOID, roles_changed, 0);  // who is pg_database_owner
    }
    memory.rules = nullptr;
    MemoryContextReset(memory.rules_memory);
    memory.current = true;  // from here on: what changes while we read makes it false again
    Oid schema = get_namespace_oid("eventbus", true);
    memory.table = OidIsValid(schema) ? get_relname_relid("topic_grant", schema) : InvalidOid;
    memory.nobody = !OidIsValid(memory.table);  // not yet ALTER EXTENSION … UPDATE; what creates it says so
}

// The patterns that count for the role, separated by commas, or nullptr.
// Read as of now, whatever snapshot the transaction works with: a grant is in force from its commit on.
char* read_patterns(Oid role) {
    StringInfoData patterns;
    initStringInfo(&patterns);
    bool empty = true;
    Relation table = table_open(memory.table, AccessShareLock);
    Snapshot now = RegisterSnapshot(GetLatestSnapshot());
    TupleTableSlot* slot = table_slot_create(table, nullptr);
    TableScanDesc scan = table_beginscan(table, now, 0, nullptr);
    while (table_scan_getnextslot(scan, ForwardScanDirection, slot)) {
        bool null;
        Oid grantee = DatumGetObjectId(slot_getattr(slot, 1, &null));
        empty = false;
        if (!has_privs_of_role(role, grantee)) continue;
        char* pattern = TextDatumGetCString(slot_getattr(slot, 2, &null));
        appendStringInfo(&patterns, "%s%s", patterns.len > 0 ? ", " : "", pattern);
    }
    table_endscan(scan);
    ExecDropSingleTupleTableSlot(slot);
    UnregisterSnapshot(now);
    table_close(table, AccessShareLock);
    memory.nobody = empty;
    return patterns.len > 0 ? patterns.data : nullptr;
}

const Rule* rule_of(Oid role) {
    for (const Rule* rule = memory.rules; rule != nullptr; rule = rule->next)
        if (rule->role == role) return rule;

    // A superuser has everybody's privileges, and may do everything.
    char* patterns = superuser_arg(role) ? nullptr : read_patterns(role);
    auto* rule = static_cast<Rule*>(MemoryContextAllocZero(memory.rules_memory, sizeof(Rule)));
    rule->role = role;
    if (patterns != nullptr) {
        rule->patterns = MemoryContextStrdup(memory.rules_memory, patterns);
        rule->filter = make_guest<router::TopicFilter>(memory.rules_memory, patterns);
    }
    rule->next = memory.rules;
    memory.rules = rule;
    return rule;
}

void check_allowed_to(Oid role, std::string_view topic) {
    const Rule* rule = rule_of(role);
    if (rule->filter == nullptr || call_guest([&] { return rule->filter->matches(topic); })) return;
    ereport(ERROR,
            (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
             errmsg("role \"%s\" may not publish topic \"%.*s\"", GetUserNameFromId(role, false),
                    static_cast<int>(topic.size()), topic.data()),
             errdetail("Topic grants of the role, and of roles whose privileges it has, say what it may publish."),
             errhint("It may publish: %s.", rule->patterns)));
}

}  // namespace

void check_allowed(std::string_view topic) {
    AcceptInvalidationMessages();  // a transaction that stays open for long takes no lock that would do it
    if (!memory.current) forget_all();
    if (memory.nobody) return;
    Oid role;
    int security;
    GetUserIdAndSecContext(&role, &security);
    check_allowed_to(role, topic);
    // SET ROLE takes nothing off a session: outside of SECURITY DEFINER functions, whoever logged in is bound as well.
    if ((security & SECURITY_LOCAL_USERID_CHANGE) == 0 && GetSessionUserId() != role)
        check_allowed_to(GetSessionUserId(), topic);
}

}  // namespace eventbus::intake
