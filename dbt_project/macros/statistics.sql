{# New statistics of tables that this transaction has made much larger: the next model would plan for a small
   table, and join row by row. #}
{% macro renew_statistics(tables) -%}
do $$
declare
    grown regclass;
begin
    for grown in
        select stats.relid
        from pg_stat_xact_user_tables as stats
        inner join pg_class as tables on stats.relid = tables.oid
        where
            stats.relid in ('{{ tables | join("'::regclass, '") }}'::regclass)
            and stats.n_tup_ins > 1000 + greatest(tables.reltuples, 0) / 5
    loop
        perform catalog.renew_statistics(grown);
    end loop;
end
$$;
{%- endmacro %}
