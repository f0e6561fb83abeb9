"""Operations: what load balancers, container engines and operators use."""
